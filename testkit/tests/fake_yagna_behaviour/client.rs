//! A plain client of a fake daemon, and short-limited daemons for it.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use uptime_testkit::fake_yagna::{Daemon, DaemonOptions, Limits, ProviderSpec, World};

pub const KEY: &str = "fake-key";
pub const SHORT: Duration = Duration::from_millis(50);

/// A client for one daemon, without the time limits of the probe.
pub struct Client {
    pub http: reqwest::Client,
    pub base: String,
}

impl Client {
    pub fn of(base: &str) -> Client {
        // Installed already if another test of the same process was first.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder().tls_certs_only([]);
        Client { http: builder.build().unwrap(), base: base.to_owned() }
    }

    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(format!("{}{path}", self.base)).bearer_auth(KEY)
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let request = self.http.post(format!("{}{path}", self.base)).bearer_auth(KEY);
        request.json(&body).send().await.unwrap().json().await.unwrap()
    }

    pub async fn delete(&self, path: &str) -> StatusCode {
        let request = self.http.delete(format!("{}{path}", self.base)).bearer_auth(KEY);
        request.send().await.unwrap().status()
    }

    pub async fn find(&self, id: &str) -> Value {
        self.post("/_gsb/local/net/FindNode", json!({"nodeId": id})).await
    }

    pub async fn ping(&self, ids: &[&str]) -> Vec<bool> {
        let answer = self.post("/_gsb/local/net/GsbPing", json!({"nodes": ids})).await;
        let pings = answer["Ok"].as_array().unwrap();
        let answered = |ping: &Value| !(ping["tcpPing"].is_null() && ping["udpPing"].is_null());
        pings.iter().map(answered).collect()
    }

    /// The status of a direct question over a fresh scan.
    pub async fn ask(&self, id: &str) -> (StatusCode, Value) {
        let scan = self.scan(json!({"type": "offer"})).await;
        let path = format!("/market-api/v1/scan/{scan}/events?timeout=4&peerId={id}");
        let answer = self.get(&path).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    pub async fn scan(&self, body: Value) -> String {
        self.post("/market-api/v1/scan", body).await.as_str().unwrap().to_owned()
    }

    /// Every provider in a fresh scan, page by page, deleted afterwards.
    pub async fn market(&self, page: usize) -> Vec<String> {
        let scan = self.scan(json!({"type": "offer"})).await;
        let path = format!("/market-api/v1/scan/{scan}/events?timeout=0&maxEvents={page}");
        let mut found = Vec::new();
        loop {
            let offers: Vec<Value> = self.get(&path).send().await.unwrap().json().await.unwrap();
            if offers.is_empty() {
                break;
            }
            assert!(offers.len() <= page);
            found.extend(offers.iter().map(|it| it["providerId"].as_str().unwrap().to_owned()));
        }
        assert_eq!(self.delete(&format!("/market-api/v1/scan/{scan}")).await, 204);
        found
    }

    /// As [`Client::market`], by demand for a subnet.
    pub async fn demand(&self, subnet: &str, expiration_ms: u128) -> Vec<String> {
        let properties = json!({
            "golem.node.debug.subnet": subnet,
            "golem.srv.comp.expiration": u64::try_from(expiration_ms).unwrap(),
        });
        let constraints = format!("(golem.node.debug.subnet={subnet})");
        let body = json!({"properties": properties, "constraints": constraints});
        let id = self.post("/market-api/v1/demands", body).await.as_str().unwrap().to_owned();
        let path = format!("/market-api/v1/demands/{id}/events?timeout=0.1&maxEvents=100");
        let mut found = Vec::new();
        loop {
            let events: Vec<Value> = self.get(&path).send().await.unwrap().json().await.unwrap();
            if events.is_empty() {
                break;
            }
            let issuers = events.iter().map(|it| it["proposal"]["issuerId"].as_str().unwrap());
            found.extend(issuers.map(str::to_owned));
        }
        assert_eq!(self.delete(&format!("/market-api/v1/demands/{id}")).await, 204);
        found
    }
}

pub async fn daemon(world: &World, options: DaemonOptions) -> (Daemon, Client) {
    let daemon = Daemon::start(world.clone(), options).await.unwrap();
    let client = Client::of(&daemon.base_url());
    (daemon, client)
}

/// Limits with which a silent node takes milliseconds.
pub fn quick() -> DaemonOptions {
    let limits = Limits {
        ping: SHORT,
        direct: SHORT,
        relay_down: SHORT,
        relay_down_ping: Duration::ZERO,
        ..Limits::default()
    };
    DaemonOptions { limits, ..DaemonOptions::default() }
}

pub fn populate(world: &World, count: usize, subnet: &str) -> Vec<String> {
    (0..count).map(|_| world.add_provider(ProviderSpec::in_subnet(subnet))).collect()
}

pub fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

pub fn soon(world: &World) -> u128 {
    (world.now() + Duration::from_secs(7200)).as_millis()
}
