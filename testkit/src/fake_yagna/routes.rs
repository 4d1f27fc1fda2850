//! The routes of the fake daemon, with the key, the counters and the faults.
//!
//! Owns the order of the checks (the key first, 401 before 404) and which handler answers a route.
//! Refuses to answer other than the simplest routes itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::clock;
use super::core::Core;
use super::fault::{Fault, FaultKind};
use super::http::{Reply, Request, Site};
use super::replies::message;
use super::{bridge, market, scan};

/// The daemon sends this with every answer to a valid key.
const VARY: &str = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

/// The routes, with the ids they carry.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Route {
    Version,
    Me,
    SubscribeDemand,
    ListDemands,
    DemandEvents(String),
    DeleteDemand(String),
    DeleteOffer(String),
    BeginScan,
    ScanEvents(String),
    DeleteScan(String),
    Bus(String),
    NetStatus,
    NetworkNotFound,
    Unknown,
}

impl Route {
    fn of(request: &Request) -> Route {
        let path = request.path().trim_start_matches('/');
        let parts: Vec<&str> = path.split('/').collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["version", "get"]) => Route::Version,
            ("GET", ["me"]) => Route::Me,
            ("POST", ["market-api", "v1", "demands"]) => Route::SubscribeDemand,
            ("GET", ["market-api", "v1", "demands"]) => Route::ListDemands,
            ("GET", ["market-api", "v1", "demands", id, "events"]) => {
                Route::DemandEvents((*id).to_owned())
            }
            ("DELETE", ["market-api", "v1", "demands", id]) => {
                Route::DeleteDemand((*id).to_owned())
            }
            ("DELETE", ["market-api", "v1", "offers", id]) => Route::DeleteOffer((*id).to_owned()),
            ("POST", ["market-api", "v1", "scan"]) => Route::BeginScan,
            ("GET", ["market-api", "v1", "scan", id, "events"]) => {
                Route::ScanEvents((*id).to_owned())
            }
            ("DELETE", ["market-api", "v1", "scan", id]) => Route::DeleteScan((*id).to_owned()),
            ("POST", ["_gsb", rest @ ..]) => Route::Bus(rest.join("/")),
            ("GET", ["net-api", "v2", "net", "status"]) => Route::NetStatus,
            ("GET", ["net-api", "v1", "net", _]) => Route::NetworkNotFound,
            _ => Route::Unknown,
        }
    }

    /// How requests are counted.
    fn label(&self, request: &Request) -> String {
        let path = match self {
            Route::DemandEvents(_) => "/market-api/v1/demands/{id}/events",
            Route::DeleteDemand(_) => "/market-api/v1/demands/{id}",
            Route::DeleteOffer(_) => "/market-api/v1/offers/{id}",
            Route::ScanEvents(_) if request.query("peerId").is_some() => {
                "/market-api/v1/scan/{id}/events?peerId"
            }
            Route::ScanEvents(_) => "/market-api/v1/scan/{id}/events",
            Route::DeleteScan(_) => "/market-api/v1/scan/{id}",
            Route::Bus(address) if address.starts_with("net/") => {
                let service = address.splitn(3, '/').nth(2).unwrap_or_default();
                return format!("POST /_gsb/net/{{id}}/{service}");
            }
            _ => request.path(),
        };
        format!("{} {path}", request.method)
    }
}

impl Site for Core {
    fn answer(self: Arc<Self>, request: Request) -> BoxFuture<'static, Reply> {
        async move {
            let route = Route::of(&request);
            let _counted = Answering::begin(&self, route.label(&request));
            let fault = self.fault(&request);
            if let Some(reply) = fault.as_ref().and_then(|fault| fault.instead(&request)) {
                return reply;
            }
            let reply = if route == Route::Version {
                with_vary(version(&self))
            } else if let Some(refusal) = self.unauthorised(&request) {
                refusal
            } else {
                with_vary(Box::pin(Arc::clone(&self).dispatch(route, request)).await)
            };
            match fault {
                Some(fault) => fault.damage(reply).await,
                None => reply,
            }
        }
        .boxed()
    }

    fn date(&self) -> String {
        clock::http_date(self.world.now())
    }
}

/// Counts a request while it is being answered.
struct Answering<'a> {
    core: &'a Core,
    label: String,
}

impl<'a> Answering<'a> {
    fn begin(core: &'a Core, label: String) -> Answering<'a> {
        core.answering.fetch_add(1, Ordering::SeqCst);
        core.lock().traffic.begin(&label, Instant::now());
        Answering { core, label }
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.core.answering.fetch_sub(1, Ordering::SeqCst);
        self.core.lock().traffic.end(&self.label);
    }
}

fn with_vary(mut reply: Reply) -> Reply {
    reply.headers.insert(0, ("vary", VARY.to_owned()));
    reply
}

impl Core {
    /// The fault that concerns a request.
    fn fault(&self, request: &Request) -> Option<FaultKind> {
        let memory = self.lock();
        let concerned = |fault: &&Fault| fault.concerns(&request.method, &request.target);
        memory.faults.iter().find(concerned).map(|fault| fault.kind.clone())
    }

    /// The refusal, unless the request carries the key exactly as it must be written.
    fn unauthorised(&self, request: &Request) -> Option<Reply> {
        let header = request.header("authorization").and_then(|it| it.strip_prefix("Bearer "));
        let key = header.map(str::to_owned).or_else(|| request.query("authToken"));
        let Some(key) = key else {
            return Some(Reply::text(401, "Missing application key"));
        };
        let refused = key != self.app_key || self.lock().key_refused;
        refused.then(|| Reply::text(401, "Invalid application key"))
    }

    async fn dispatch(self: Arc<Self>, route: Route, request: Request) -> Reply {
        let (has_scan_api, has_bridge) = {
            let memory = self.lock();
            (memory.has_scan_api, memory.has_bridge)
        };
        match route {
            Route::Me => me(&self),
            Route::SubscribeDemand => market::subscribe(&self, &request),
            Route::ListDemands => market::list(&self),
            Route::DemandEvents(id) => market::events(&self, &id, &request).await,
            Route::DeleteDemand(id) => market::unsubscribe(&self, &id),
            Route::DeleteOffer(id) => market::withdraw_offer(&self, &id),
            Route::BeginScan if has_scan_api => scan::begin(&self, &request),
            Route::ScanEvents(id) if has_scan_api => scan::events(&self, &id, &request).await,
            Route::DeleteScan(id) if has_scan_api => scan::end(&self, &id),
            Route::Bus(address) if has_bridge => bridge::call(&self, &address, &request).await,
            Route::NetStatus => bridge::net_status(&self),
            Route::NetworkNotFound => message(404, "Network not found"),
            _ => Reply::empty(404),
        }
    }
}

fn me(core: &Core) -> Reply {
    let identity = &core.identity;
    let name = r#""name":"autoconfigured","role":"manager""#;
    Reply::json(200, format!(r#"{{"identity":"{identity}",{name}}}"#))
}

fn version(core: &Core) -> Reply {
    let since = clock::zoneless(core.started);
    let build = r#""version":"0.17.6-nightly","name":"(49e8b486a 2026-11-23)","seen":true"#;
    let dates = format!(
        r#""releaseTs":"2015-10-13T15:43:00","insertionTs":"{since}","updateTs":"{since}""#
    );
    Reply::json(200, format!(r#"{{"current":{{{build},{dates}}},"pending":null}}"#))
}
