//! The CSV and the badges: validators, statuses, and what they hold.

use reqwest::header::{ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};

use crate::site::{Site, node};

#[tokio::test]
async fn the_csv_is_what_lies_on_disk_and_is_not_sent_twice() {
    let site = Site::open().await;
    let on_disk = std::fs::read_to_string(&site.csv).unwrap();
    let answer = site.get("/nodes_status.csv").await;
    assert_eq!(answer.headers()["content-type"], "text/csv; charset=utf-8");
    assert_eq!(answer.headers()["content-length"], on_disk.len().to_string().as_str());
    let tag = answer.headers()[ETAG].clone();
    let modified = answer.headers()[LAST_MODIFIED].clone();
    assert!(!tag.to_str().unwrap().starts_with("W/"), "the tag is strong");
    assert_eq!(answer.text().await.unwrap(), on_disk);

    let url = format!("{}/nodes_status.csv", site.address);
    for (name, value) in [(IF_NONE_MATCH, &tag), (IF_MODIFIED_SINCE, &modified)] {
        let again = site.client.get(&url).header(name, value).send().await.unwrap();
        assert_eq!((again.status().as_u16(), &again.headers()[ETAG]), (304, &tag));
        assert_eq!(again.bytes().await.unwrap().len(), 0);
    }
    let other = site.client.get(&url).header(IF_NONE_MATCH, "\"other\"").send().await.unwrap();
    assert_eq!(other.status(), 200);

    let head = site.client.head(&url).send().await.unwrap();
    assert_eq!((head.status().as_u16(), &head.headers()[ETAG]), (200, &tag));
    assert_eq!(head.headers()["content-length"], on_disk.len().to_string().as_str());
    assert_eq!(head.bytes().await.unwrap().len(), 0);

    // The same bytes in another file are the same; other bytes are not.
    site.write_csv();
    let same = site.client.get(&url).header(IF_NONE_MATCH, &tag).send().await.unwrap();
    assert_eq!(same.status(), 304);
    std::fs::write(&site.csv, "issuer_id\n").unwrap();
    let changed = site.client.get(&url).header(IF_NONE_MATCH, &tag).send().await.unwrap();
    assert_eq!(
        (changed.status().as_u16(), changed.text().await.unwrap()),
        (200, "issuer_id\n".into())
    );
    std::fs::remove_file(&site.csv).unwrap();
    let gone = site.get("/nodes_status.csv").await;
    assert_eq!(
        (gone.status().as_u16(), &gone.headers()["retry-after"]),
        (503, &"1".parse().unwrap())
    );
}

#[tokio::test]
async fn a_download_that_began_ends_with_what_it_began() {
    let site = Site::open().await;
    let first = "x".repeat(8 << 20);
    std::fs::write(&site.csv, &first).unwrap();
    let mut answer = site.get("/nodes_status.csv").await;
    let mut read = answer.chunk().await.unwrap().unwrap().len();
    site.write_csv();
    while let Some(piece) = answer.chunk().await.unwrap() {
        assert!(piece.iter().all(|byte| *byte == b'x'));
        read += piece.len();
    }
    assert_eq!(read, first.len());
}

#[tokio::test]
async fn badges_say_what_is_so() {
    let site = Site::open().await;
    // Known since ten minutes ago: fully covered while it lives.
    let (up, down, unknown) = (node(0), node(1), node(2));
    for (path, status, label, value, colour) in [
        (format!("/badge/{up}.svg"), 200, "uptime 30d", "100 %", "#2a7d4f"),
        (format!("/badge/{up}.svg?window=all"), 200, "uptime", "100 %", "#2a7d4f"),
        (format!("/badge/{down}.svg?window=24h"), 200, "uptime 24h", "50.00 %", "#b3341f"),
        (format!("/badge/{down}.svg?window=5min"), 200, "uptime 5min", "0.00 %", "#b3341f"),
        (format!("/badge/{unknown}.svg"), 200, "uptime 30d", "unknown", "#6b7280"),
        (format!("/badge/{}.svg", node(99)), 404, "uptime", "node not known", "#6b7280"),
        ("/badge/0x12.svg".to_owned(), 400, "uptime", "not a node id", "#6b7280"),
        (format!("/badge/{up}"), 404, "uptime", "wrong address", "#6b7280"),
        (format!("/badge/{up}.svg?window=7y"), 400, "uptime", "wrong address", "#6b7280"),
        (format!("/badge/{up}.svg?colour=red"), 400, "uptime", "wrong address", "#6b7280"),
        ("/badge/%3Cscript%3E.svg".to_owned(), 400, "uptime", "not a node id", "#6b7280"),
    ] {
        let answer = site.get(&path).await;
        assert_eq!(answer.status().as_u16(), status, "{path}");
        assert_eq!(answer.headers()["content-type"], "image/svg+xml", "{path}");
        assert_eq!(answer.headers()["cache-control"], "public, max-age=30", "{path}");
        let policy = &answer.headers()["content-security-policy"];
        assert_eq!(policy, "default-src 'none'; frame-ancestors 'none'");
        let svg = answer.text().await.unwrap();
        assert!(svg.contains(&format!(">{label}</text>")), "{path}: {svg}");
        assert!(svg.contains(&format!(">{value}</text>")), "{path}: {svg}");
        assert!(svg.contains(colour) && svg.contains("role=\"img\""), "{path}: {svg}");
        assert!(svg.contains("<title>uptime") && !svg.contains("script"), "{path}: {svg}");
    }
    let path = format!("{}/badge/{up}.svg", site.address);
    let tag = site.client.get(&path).send().await.unwrap().headers()[ETAG].clone();
    let again = site.client.get(&path).header(IF_NONE_MATCH, tag).send().await.unwrap();
    assert_eq!(again.status(), 304);
}
