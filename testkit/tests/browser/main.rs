//! The pages in a real browser: Debian's chromium, headless, against 10,000 nodes.
//!
//! Checks the DOM of a page after its scripts ran, the console of the browser, and the addresses
//! that it requested. Also saves screenshots for people: `target/browser/*.png`. Without chromium
//! the suite is skipped and says so; in CI it fails.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../../aggregator/tests/shared/fixture.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod aggregator;
mod chromium;
mod fixture;
#[path = "../../../aggregator/tests/shared/stepping.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by several test binaries")]
mod stepping;

use chromium::{Look, Shot, find};
use fixture::{Fixture, node};

/// Whether to skip the suite. Says so on standard error.
fn is_left_out() -> bool {
    if find().is_some() {
        return false;
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "CI is set and there is no chromium: apt-get install chromium"
    );
    eprintln!(
        "\n*** THE BROWSER TESTS ARE LEFT OUT: there is no chromium on this machine. ***\n\
         *** apt-get install chromium, or sh deploy/test.sh, which installs it.       ***\n"
    );
    true
}

/// The console is empty, and only our address was requested.
fn assert_quiet(look: &Look, fixture: &Fixture) {
    assert_eq!(look.console, Vec::<String>::new(), "the console is empty");
    assert!(look.asked.iter().any(|address| address.contains("/assets/page-")), "{look:?}");
    for address in &look.asked {
        assert!(address.starts_with(&fixture.address), "{address} was asked for");
    }
}

fn count(dom: &str, piece: &str) -> usize {
    dom.matches(piece).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_shows_the_pages_drives_them_and_asks_nobody_else() {
    if is_left_out() {
        return;
    }
    let fixture = Fixture::open().await;
    a_fault_would_be_seen(&fixture).await;
    the_overview(&fixture).await;
    a_node(&fixture).await;
    typing_and_turning(&fixture).await;
    pictures(&fixture).await;
}

async fn a_fault_would_be_seen(fixture: &Fixture) {
    let faulty = Look::at(&fixture.url("/faulty")).await;
    assert!(faulty.console.iter().any(|line| line.contains("\"no\"")), "{faulty:?}");
    assert!(faulty.asked.contains(&"http://elsewhere.example/".to_owned()), "{faulty:?}");
}

async fn the_overview(fixture: &Fixture) {
    let overview = Look::at(&fixture.url("/")).await;
    assert_quiet(&overview, fixture);
    let dom = &overview.dom;
    assert_eq!(count(dom, "<th scope=\"row\"><a href=\"/nodes/"), 50);
    assert!(dom.contains(&format!("Nodes 1 to 50 of {}.", fixture.listed)), "{dom}");
    assert_eq!(count(dom, "class=\"plot rounds\""), 1);
    assert_eq!(count(dom, "class=\"plot probe\""), 3);
    // What was hostile is text, and made no element.
    assert!(dom.contains("&lt;script&gt;document.title=\"taken\"&lt;/script&gt;"), "{dom}");
    assert!(dom.contains("<title>Overview · Golem Uptime</title>"));
    assert_eq!(count(dom, "<script"), 1);
}

async fn a_node(fixture: &Fixture) {
    let page = Look::at(&fixture.url(&node_path(1))).await;
    assert_quiet(&page, fixture);
    let days = page.dom.split("class=\"plot days\"").nth(1).unwrap();
    let days = days.split("</svg>").next().unwrap();
    // One title for the plot and one for each day.
    assert_eq!(count(days, "<title>"), 91, "{days}");
    assert!(page.dom.contains("found it unreachable"), "the account of the last round is there");
}

/// The script does what the form and the links do without it.
async fn typing_and_turning(fixture: &Fixture) {
    let plain = Look::at(&fixture.url("/?find=provider-77&sort=-name")).await;
    assert_quiet(&plain, fixture);
    let total = plain.dom.split("Nodes 1 to 50 of ").nth(1).unwrap().split('.').next().unwrap();
    // 77, 770 to 779 and 7700 to 7799, but for those that are retired.
    assert!((100..=111).contains(&total.parse::<u32>().unwrap()), "{total}");

    let typed = Look::at(&fixture.url("/driven?drive=type")).await;
    assert_quiet(&typed, fixture);
    assert!(typed.dom.contains(&format!("Nodes 1 to 50 of {total}.")), "{}", typed.dom);
    assert!(typed.dom.contains("data-driven=\"?find=provider-77&amp;sort=id\""), "{}", typed.dom);

    let turned = Look::at(&fixture.url("/driven?drive=turn")).await;
    assert_quiet(&turned, fixture);
    let second = format!("Nodes 51 to 100 of {}.", fixture.listed);
    assert!(turned.dom.contains(&second), "{}", turned.dom);
}

/// Screenshots for people; the test only checks that they are not empty.
async fn pictures(fixture: &Fixture) {
    let (one, three) = (node_path(1), node_path(3));
    for shot in [
        Shot { name: "overview-light", path: "/", width: 1_280, height: 1_700, dark: false },
        Shot { name: "overview-dark", path: "/", width: 1_280, height: 1_700, dark: true },
        Shot { name: "overview-phone", path: "/", width: 500, height: 2_400, dark: false },
        Shot { name: "node-light", path: &one, width: 1_280, height: 2_900, dark: false },
        Shot { name: "node-dark", path: &three, width: 1_280, height: 2_000, dark: true },
        Shot { name: "node-phone", path: &one, width: 500, height: 3_600, dark: true },
    ] {
        let bytes = shot.take(&fixture.address).await;
        assert!(bytes > 20_000, "{} has {bytes} bytes: nothing is on it", shot.name);
    }
}

fn node_path(number: u64) -> String {
    format!("/nodes/{}", node(number))
}
