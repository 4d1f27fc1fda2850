//! Tests: offers and demands, as recorded and as strangers might write them.

use super::super::market::parse_own;
use super::super::offer::{Form, Listing, Offer};
use super::super::{CouldNotLook, valid_subnet};
use super::{KILLED, LIVING, recorded, told};

fn listing(form: Form, subnet: &str, pages: &[&str]) -> Result<Vec<Offer>, CouldNotLook> {
    let mut listing = Listing::new(subnet);
    for page in pages {
        let page = recorded(page);
        listing.take_page(form, 1_000, page.status, &page.body)?;
    }
    listing.finish()
}

fn names(offers: Result<Vec<Offer>, CouldNotLook>) -> String {
    told(offers.map(|offers| {
        let name = |offer: Offer| format!("{} {}", offer.name, offer.runtime);
        offers.into_iter().map(name).collect::<Vec<_>>()
    }))
}

#[test]
fn offers_of_scans_and_demands() {
    let offers = listing(Form::Scan, "public", &["41_scan_collect", "42_scan_collect_again"]);
    let offers = offers.unwrap();
    let expected = Offer {
        node_id: LIVING.parse().unwrap(),
        name: "lab-provider-1".to_owned(),
        runtime: "vm".to_owned(),
        runtime_version: "0.5.3".to_owned(),
        networks: vec!["erc20-polygon-glm".to_owned(), "erc20next-polygon-glm".to_owned()],
        subnet: "public".to_owned(),
    };
    assert_eq!(offers[0], expected);
    assert_eq!(offers.len(), 2);
}

#[test]
fn only_offers_of_the_subnet_asked_for() {
    let (one_two, three) =
        (r#"["lab-provider-1 vm", "lab-provider-2 vm"]"#, r#"["lab-provider-3 vm"]"#);
    let malformed = "could not look: malformed_answer";
    let every_subnet = "49_scan_all_no_constraints#2";
    for (subnet, page, expected) in [
        ("public", every_subnet, one_two),
        ("testnet1", every_subnet, three),
        ("nobody", every_subnet, "[]"),
        ("public", "20_events_yapapi_scanner", malformed), // events are no offers
        ("public", "48_scan_bad_requests#4", "could not look: market_error"),
    ] {
        assert_eq!(names(listing(Form::Scan, subnet, &[page])), expected, "{page} {subnet}");
    }
    for (subnet, page, expected) in [
        ("public", "20_events_yapapi_scanner", one_two),
        ("public", "21_events_subnet_and", one_two),
        ("public", "26_events_nested_props", one_two),
        ("testnet1", "28_events_testnet1", three),
        ("nobody", "29_events_none", "[]"),
        ("public", "41_scan_collect", "[]"), // no event in it brings an offer
        ("public", "2c_events_timeout_zero", "[]"),
        ("public", "2f_events_maxevents_0", "could not look: market_error"),
        ("public", "2i_events_unknown_id", "could not look: market_error"),
        ("public", "2j_events_malformed_id", "could not look: market_error"),
        ("public", "2k_events_noauth", "could not look: unauthorised"),
        ("public", "33_events_after_delete", "could not look: market_error"),
        ("public", "40_scan_begin", "could not look: market_error"),
    ] {
        assert_eq!(names(listing(Form::Events, subnet, &[page])), expected, "{page} {subnet}");
    }
}

#[test]
fn offers_that_were_passed_on_count() {
    let good = format!(
        r#"{{"providerId":"{LIVING}","properties":{{"golem.node.debug.subnet":"public"}}}}"#
    );
    let mut listing = Listing::new("public");
    listing.take_page(Form::Scan, 3, 200, &page(&[&good, "7"])).unwrap();
    assert_eq!(listing.drain().count(), 1);
    let over = listing.take_page(Form::Scan, 3, 200, &page(&[&good, &good]));
    assert_eq!(told(over), "could not look: answer_too_large");
    assert_eq!(told(listing.finish()), "[]", "one was an offer");
}

#[test]
fn offers_of_a_real_agent() {
    let pages = ["2z_real_ya_provider_offers#2", "2z_real_ya_provider_offers#3"];
    let offers = listing(Form::Events, "public", &pages).unwrap();
    assert!(offers.is_sorted());
    let real: Vec<&Offer> = offers.iter().filter(|offer| offer.runtime == "wasmtime").collect();
    assert_eq!(real.len(), 1, "{offers:?}");
    assert_eq!(real[0].networks, ["erc20-polygon-glm"]);
    let of_node = offers.iter().filter(|offer| offer.node_id == real[0].node_id);
    assert_eq!(of_node.count(), 3, "one node, several offers");
}

fn page(items: &[&str]) -> Vec<u8> {
    format!("[{}]", items.join(",")).into_bytes()
}

fn scan_of(items: &[&str]) -> Result<Vec<Offer>, CouldNotLook> {
    let mut listing = Listing::new("public");
    listing.take_page(Form::Scan, 10, 200, &page(items))?;
    listing.finish()
}

#[test]
fn one_bad_offer_costs_only_itself() {
    let good = format!(
        r#"{{"providerId":"{}","properties":{{"golem.node.debug.subnet":"public"}}}}"#,
        LIVING.to_uppercase()
    );
    let nested = format!(
        r#"{{"providerId":"{KILLED}","properties":{{"golem.node.debug.subnet":"public",
            "golem.node.id.name":"a\nb","golem.runtime.name":7,"deep":{}{}}}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let bad = [
        "7",
        "null",
        "{}",
        r#"{"providerId":"0x1","properties":{"golem.node.debug.subnet":"public"}}"#,
        r#"{"providerId":1,"properties":{"golem.node.debug.subnet":"public"}}"#,
        r#"{"providerId":"0x85f06344fde97d390e87b0840b0325212f26eba7","properties":[]}"#,
    ];
    assert_eq!(told(scan_of(&bad)), "could not look: malformed_answer");
    let mut items = bad.to_vec();
    items.extend([good.as_str(), nested.as_str()]);
    let offers = scan_of(&items).unwrap();
    assert_eq!(offers.len(), 2);
    assert_eq!(offers[0].name, "a b");
    assert_eq!(offers[0].runtime, "");
    assert_eq!(offers[1].node_id.to_string(), LIVING);
    let many = vec![good.as_str(); 11];
    assert_eq!(told(scan_of(&many)), "could not look: answer_too_large");
}

#[test]
fn foreign_texts_are_cut_and_cleaned() {
    let platforms: Vec<String> = (0..100)
        .map(|number| format!(r#""golem.com.payment.platform.net-{number:03}.address":"0x""#))
        .collect();
    let item = format!(
        r#"{{"providerId":"{LIVING}","properties":{{"golem.node.debug.subnet":"public",
            "golem.node.id.name":"{}","golem.runtime.version@v":"1",
            "golem.com.payment.platform..address":1,
            {}}}}}"#,
        "ä".repeat(100),
        platforms.join(",")
    );
    let offers = scan_of(&[&item]).unwrap();
    assert_eq!(offers[0].name, "ä".repeat(64));
    assert_eq!(offers[0].runtime_version, "1");
    assert_eq!(offers[0].networks.len(), 32);
    assert_eq!(offers[0].networks[0], "net-000");
}

#[test]
fn only_our_own_demands_are_ours() {
    let list = recorded("1i_demands_list");
    let own = parse_own(list.status, &list.body, "default", i64::MAX).unwrap();
    assert_eq!(own, Vec::<String>::new());
    let body = br#"[
        {"demandId":"a","properties":{"golem.uptime.probe":"one",
            "golem.srv.comp.expiration":1800000}},
        {"demandId":"b","properties":{"golem.uptime.probe":"one",
            "golem.srv.comp.expiration":1800001}},
        {"demandId":"c","properties":{"golem.uptime.probe":"two"}},
        {"demandId":"d","properties":{"golem.uptime.probe":1}},
        {"demandId":"../me","properties":{"golem.uptime.probe":"one"}},
        {"demandId":"e","properties":{}}, {"demandId":7}, 7]"#;
    assert_eq!(parse_own(200, body, "one", i64::MAX).unwrap(), ["a", "b"]);
    assert_eq!(parse_own(200, body, "one", 0).unwrap(), ["a"]);
    assert_eq!(parse_own(200, body, "two", 0).unwrap(), ["c"]);
}

#[test]
fn subnets() {
    for good in ["public", "devnet-beta.2", "a_b:c/d@e", "zażółć", &"a".repeat(64)] {
        assert_eq!(valid_subnet(good), Ok(()), "{good}");
    }
    let long = "a".repeat(65);
    for bad in ["", "a)(b=c", "a(b", "pub*", "a\\b", "a b", "a\nb", "a&b", "a=b", "[a]", &long] {
        assert!(valid_subnet(bad).is_err(), "{bad:?}");
    }
}
