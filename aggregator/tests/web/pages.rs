//! The overview and the page of a node: what stands in them, what must never, and what they carry.

use crate::site::{AGE_S, HOSTILE, HOSTILE_PROBE, HOSTILE_SUBNET, NODES, Site, node};

/// Headers that hold a browser to this origin, on everything.
fn assert_guarded(answer: &reqwest::Response) {
    let headers = answer.headers();
    assert_eq!(headers["x-content-type-options"], "nosniff", "{}", answer.url());
    assert_eq!(headers["referrer-policy"], "no-referrer", "{}", answer.url());
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{}: {policy}", answer.url());
    assert!(policy.contains("frame-ancestors 'none'"), "{}: {policy}", answer.url());
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{}: {policy}", answer.url());
}

/// Nothing in a page runs, styles itself, or asks another origin.
fn assert_harmless(html: &str) {
    assert_eq!(html.matches("<script").count(), 1, "one script, our own");
    assert!(html.contains("<script src=\"/assets/page-"));
    for word in ["<img", "<style", " style=", "javascript:", "http://", "https://", "<iframe"] {
        assert!(!html.contains(word), "{word}");
    }
    // An attribute that begins with `on` is a handler; what stands between quotes is text.
    let tags = html.split('<').skip(1).filter_map(|tag| tag.split('>').next());
    for tag in tags {
        let bare: Vec<&str> = tag.split('"').step_by(2).collect();
        assert!(!bare.iter().any(|piece| piece.contains(" on")), "{tag}");
    }
    for letter in ['\u{202e}', '\u{2066}', '\u{200b}', '\u{0}', '\u{1b}'] {
        assert!(!html.contains(letter), "{letter:?}");
    }
    assert!(html.ends_with("</html>\n"));
}

/// Every element that is opened is closed, in order; void ones aside.
fn assert_well_formed(html: &str) {
    const VOID: [&str; 5] = ["meta", "link", "input", "br", "!doctype"];
    let mut open: Vec<&str> = Vec::new();
    for tag in html.split('<').skip(1).filter_map(|tag| tag.split('>').next()) {
        let name = tag.split([' ', '/']).find(|word| !word.is_empty()).unwrap_or("");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "closed in order");
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert_eq!(open, Vec::<&str>::new());
    let mut ids: Vec<&str> =
        html.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "ids are unique");
}

#[tokio::test]
async fn every_answer_is_guarded() {
    let site = Site::open().await;
    for path in [
        "/",
        "/nodes/0x",
        "/nowhere",
        "/api/v1/nodes",
        "/api/v1/nowhere",
        "/api/v1/openapi.json",
        "/badge/x.svg",
        "/nodes_status.csv",
        "/metrics",
        "/healthz",
        "/readyz",
        "/?page=x",
        "/assets/none",
    ] {
        assert_guarded(&site.get(path).await);
    }
    let refused = site.client.post(&site.address).send().await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["allow"]),
        (405, &"GET,HEAD".parse().unwrap())
    );
    assert_guarded(&refused);
    let head = site.client.head(&site.address).send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(head.bytes().await.unwrap().len(), 0);
}

#[tokio::test]
async fn the_overview_tells_how_the_network_is() {
    let site = Site::open().await;
    let html = site.page("/").await;
    assert_harmless(&html);
    assert_well_formed(&html);
    // 1 is down, of 2 nothing is known. That a daemon gave an error for it makes no probe ail.
    for wanted in [
        "<dt>Up</dt><dd class=\"is-up\">10</dd>",
        "<dt>Down</dt><dd class=\"is-down\">1</dd>",
        "<dt>Unknown</dt><dd class=\"is-unknown\">1</dd>",
        "<dt>Coverage</dt><dd class=\"\">91.66 %<small>of 12 known nodes</small>",
        "<dt>Probes</dt><dd class=\"\">2 of 3",
        "10 up, 1 down, 1 unknown",
        "The last 20 rounds",
        "limited</span> <span class=\"small soft\">its yagna daemon could not be reached</span>",
        "working</span> <span class=\"small soft\">its daemon gave an error for 1 node</span>",
        "12 nodes.",
        "<span class=\"small soft\">No report for 10 min, until <time",
        ": its spool was full</span>",
    ] {
        assert!(html.contains(wanted), "{wanted}: {html}");
    }
    assert!(html.contains(&format!("ended {AGE_S} s ago")));
    assert!(!html.contains("This is old"));
    for number in 0..NODES {
        assert!(html.contains(&format!("<a href=\"/nodes/{}\">", node(number))));
    }
    // What was hostile is text.
    assert!(
        html.contains(
            "<bdi>&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39;&amp;&#96;\u{fffd}"
        )
    );
    assert!(
        html.contains("<bdi>beta&lt;/table&gt;&lt;script&gt;alert(3)&lt;/script&gt;\u{fffd}</bdi>")
    );
    assert!(html.contains("<bdi>pub&quot;&gt;&lt;img src=x onerror=alert(2)&gt;\u{fffd}</bdi>"));
}

#[tokio::test]
async fn what_is_old_is_not_shown_as_new_and_nothing_is_no_error() {
    let old = Site::open_old().await;
    for path in ["/".to_owned(), format!("/nodes/{}", node(0))] {
        let html = old.page(&path).await;
        assert!(html.contains("role=\"alert\"><strong>This is old.</strong>"), "{path}");
        assert!(html.contains("1 d 1 h ago"), "{path}");
    }
    assert_eq!(old.get("/readyz").await.status(), 503);
    let empty = Site::open_empty().await;
    let html = empty.page("/").await;
    assert!(html.contains("No round has closed yet.") && html.contains("No matching nodes."));
    assert_harmless(&html);
    assert_well_formed(&html);
    assert_eq!(empty.get(&format!("/nodes/{}", node(0))).await.status(), 404);
}

#[tokio::test]
async fn it_is_not_ready_while_no_probe_sees_anything() {
    assert_eq!(Site::open().await.get("/readyz").await.status(), 200);
    let blind = Site::open_blind().await.get("/readyz").await;
    assert_eq!(blind.status(), 503);
    let said = blind.text().await.unwrap();
    assert!(said.contains("no probe could look in the last 3 rounds"), "{said}");
}

fn order(html: &str) -> Vec<u64> {
    let shown = html.split("<th scope=\"row\"><a href=\"/nodes/").skip(1);
    let ids = shown.map(|rest| rest.split('"').next().unwrap());
    ids.map(|id| (0..NODES).find(|number| node(*number).to_string() == id).unwrap()).collect()
}

#[tokio::test]
async fn the_table_filters_sorts_and_turns_pages_without_a_script() {
    let site = Site::open().await;
    let all: Vec<u64> = (0..NODES).collect();
    let reversed: Vec<u64> = all.iter().rev().copied().collect();
    let subnet = "pub%22%3E%3Cimg+src%3Dx+onerror%3Dalert(2)%3E%E2%81%A6";
    for (query, wanted) in [
        (String::new(), all.clone()),
        ("?sort=-id".into(), reversed.clone()),
        ("?state=down".into(), vec![1]),
        ("?state=unknown".into(), vec![2]),
        ("?state=retired".into(), vec![]),
        ("?below=90".into(), vec![1, 3]),
        ("?below=90&sort=-uptime".into(), vec![3, 1]),
        ("?find=PROVIDER-1".into(), vec![1, 10, 11]),
        ("?find=%3Cscript".into(), vec![4]),
        (format!("?find={}", node(7)), vec![7]),
        (
            format!("?find={}", &node(7).to_string().to_uppercase().replace("0X", "0x")[..12]),
            vec![7],
        ),
        ("?find=0xff".into(), vec![]),
        (format!("?subnet={subnet}"), vec![4]),
        ("?subnet=public&state=down".into(), vec![1]),
        ("?subnet=nowhere".into(), vec![]),
        ("?size=5&page=2".into(), vec![5, 6, 7, 8, 9]),
        ("?size=5&page=999".into(), vec![10, 11]),
        // By name, those without one first, then as text: 10 and 11 come before 3.
        ("?sort=name&size=4".into(), vec![5, 4, 0, 1]),
        ("?sort=subnet&size=1".into(), vec![4]),
        // Nobody could tell of 2; 1 was up half of the time, 3 was down for four rounds.
        ("?sort=uptime&size=3".into(), vec![2, 1, 3]),
        ("?sort=seen&size=2".into(), vec![2, 1]),
    ] {
        let html = site.page(&format!("/{query}")).await;
        assert_eq!(order(&html), wanted, "{query}");
        assert_harmless(&html);
        assert_well_formed(&html);
    }
    let html = site.page("/?size=5&sort=-name&find=p&page=2").await;
    assert!(html.contains("aria-sort=\"descending\""));
    assert!(html.contains("Nodes 6 to 10 of 11."), "{html}");
    let next = "rel=\"next\" href=\"/?find=p&amp;sort=-name&amp;page=3&amp;size=5#nodes\"";
    assert!(html.contains(next), "{html}");
    assert!(html.contains("name=\"sort\" value=\"-name\""));
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_refused_as_a_page() {
    let site = Site::open().await;
    for (path, status, part) in [
        ("/?size=1000000000".to_owned(), 400, "from 1 to 500"),
        ("/?nonsense=1".to_owned(), 400, "known: find, subnet, state, below, sort, page, size"),
        (format!("/?find={}", "x".repeat(5_000)), 414, "at most 4096"),
        (format!("/?find={}", "x".repeat(300)), 400, "at most 256"),
        ("/?find=%ff".to_owned(), 400, "UTF-8"),
        ("/?%3Cscript%3E=1".to_owned(), 400, "&lt;script&gt;"),
        ("/nodes/0x12".to_owned(), 400, "40 hexadecimal"),
        ("/nodes/%3Cscript%3E".to_owned(), 400, "40 hexadecimal"),
        (format!("/nodes/{}", node(77)), 404, "never seen"),
        ("/nowhere/%3Cscript%3E".to_owned(), 404, "nothing at this address"),
    ] {
        let answer = site.get(&path).await;
        assert_eq!(answer.status().as_u16(), status, "{path}");
        let html = answer.text().await.unwrap();
        assert!(html.contains(part), "{path}: {html}");
        assert_harmless(&html);
        assert_well_formed(&html);
    }
}

#[tokio::test]
async fn a_node_is_told_whole() {
    let site = Site::open().await;
    let html = site.page(&format!("/nodes/{}", node(1))).await;
    assert_harmless(&html);
    assert_well_formed(&html);
    for wanted in [
        "<bdi>provider-1</bdi>",
        "class=\"state is-down\">down",
        "since <time datetime=\"2030-01-01T00:00:00Z\">",
        // Two days of it: up before midnight, down since.
        "<title>2029-12-31: uptime 100 %, coverage 100 %</title>",
        "<title>2030-01-01: uptime 0.00 %, coverage 100 %</title>",
        "<title>2029-12-30: not known yet</title>",
        "90 days: uptime 50.00 %, coverage 100 %",
        "24 hours: up 5 min, down 5 min, unknown 0 s",
        "One outage, 5 min in all",
        "<td>not yet</td>",
        "<strong>Down: none of the 3 probes that looked could reach it.</strong>",
        "<strong><bdi>alpha</bdi></strong> found it unreachable. <span class=\"soft\">That counts.",
        "the relay did not know it; asked directly (2 times, 4 s each): no answer.",
        "market of <bdi>public</bdi>: could not look: its yagna daemon could not be reached.",
        "market of <bdi>public</bdi>: its offer was there, which is no sign of life",
        "<details open><summary>Is this your node, and is it shown as down?",
        "yagna net find 0x",
        "<dt>Runtime</dt><dd><bdi>vm 0.5.1</bdi></dd>",
    ] {
        assert!(html.contains(wanted), "{wanted}: {html}");
    }
    let html = site.page(&format!("/nodes/{}", node(3))).await;
    assert!(html.contains("One outage, 2 min in all") && html.contains("<details><summary>Is"));
    let html = site.page(&format!("/nodes/{}", node(2))).await;
    for wanted in [
        "<strong>Unknown: no probe that could see well looked for it. 1 probe asked, but its own \
         daemon gave an error. That says nothing about the node.</strong>",
        "<bdi>alpha</bdi></strong> asked, but its daemon gave an error. \
         <span class=\"soft\">It has no vote.</span>",
        "<bdi>gamma</bdi></strong> did not ask about it.",
        "asked, but its own daemon gave an error: its yagna daemon answered the network question \
         with an error; that says nothing about the node.",
        "look-up: not asked.",
    ] {
        assert!(html.contains(wanted), "{wanted}: {html}");
    }
    // Whatever a node and its probes are called.
    let html = site.page(&format!("/nodes/{}", node(4))).await;
    assert_harmless(&html);
    assert_well_formed(&html);
    assert!(html.contains("<title>&lt;script&gt;alert"));
    assert!(HOSTILE.contains('<') && HOSTILE_PROBE.contains('<') && HOSTILE_SUBNET.contains('<'));
    let html = site.page(&format!("/nodes/{}", node(5))).await;
    assert!(html.contains("Node without a name"));
    // As somebody may paste it.
    let upper = node(3).to_string().to_uppercase();
    assert_eq!(site.get(&format!("/nodes/{upper}")).await.status(), 200);
}

#[tokio::test]
async fn many_may_ask_at_once() {
    let site = Site::open().await;
    let paths = ["/", "/?sort=uptime", "/api/v1/nodes", "/nodes_status.csv"];
    let asking = (0..100).map(|at| site.get(paths[at % paths.len()]));
    for answer in futures_util::future::join_all(asking).await {
        assert_eq!(answer.status(), 200);
    }
}

#[tokio::test]
async fn files_of_the_pages_are_kept_for_ever_under_their_digest() {
    let site = Site::open().await;
    let html = site.page("/").await;
    let files: Vec<&str> =
        html.split("\"/assets/").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(files.len(), 3);
    for file in files {
        let answer = site.get(&format!("/assets/{file}")).await;
        assert_eq!(answer.status(), 200, "{file}");
        assert!(answer.headers()["cache-control"].to_str().unwrap().contains("immutable"));
        let digits = file.split(['-', '.']).nth(1).unwrap();
        assert_eq!(digits.len(), 16);
    }
}
