//! Offers as providers publish them, and what a provider in the fake network is made of.
//!
//! Owns the shape of an offer: property names, constraint text, ids and their JSON, all as
//! recorded. Refuses to know who sees it; that is the world's and the daemons' business.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

use super::clock::{self, UnixTime};
use super::constraint::{Expression, flatten};

/// The subnet tag's property.
const SUBNET: &str = "golem.node.debug.subnet";

/// A provider to be added to the world.
#[derive(Clone, Debug)]
pub struct ProviderSpec {
    /// `0x` + 40 lower-case hex digits; drawn from the seed if `None`.
    pub id: Option<String>,
    /// `golem.node.id.name`; derived from the id if `None`.
    pub name: Option<String>,
    /// `golem.node.debug.subnet`.
    pub subnet: String,
    /// One offer is published per runtime.
    pub runtimes: Vec<String>,
    /// Other identities of the same daemon: known to the relay under the same session, no offers.
    pub other_identities: usize,
    /// Behind a firewall: reached through the relay only, no endpoints, never peer to peer.
    pub firewalled: bool,
    /// Offers exactly as recorded (scan form), instead of generated ones.
    pub recorded: Vec<Value>,
    /// The UDP port its relay sessions show; drawn from the seed if `None`.
    pub port: Option<u16>,
}

impl Default for ProviderSpec {
    fn default() -> Self {
        ProviderSpec {
            id: None,
            name: None,
            subnet: "public".to_owned(),
            runtimes: vec!["vm".to_owned()],
            other_identities: 0,
            firewalled: false,
            recorded: Vec::new(),
            port: None,
        }
    }
}

impl ProviderSpec {
    /// A provider with one `vm` offer in `subnet`.
    #[must_use]
    pub fn in_subnet(subnet: &str) -> ProviderSpec {
        ProviderSpec { subnet: subnet.to_owned(), ..ProviderSpec::default() }
    }
}

/// One published offer. Immutable; whether it was withdrawn is kept beside it.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    /// 32 hex digits, a dash, 64 hex digits.
    pub(crate) offer_id: String,
    /// Who published it.
    pub(crate) provider_id: String,
    /// Flat properties.
    pub(crate) properties: Map<String, Value>,
    /// What it demands of a demand, as written.
    pub(crate) constraints: String,
    /// When it was published.
    pub(crate) published: UnixTime,
    /// When it ends by itself.
    pub(crate) expires: UnixTime,
    expression: Option<Expression>,
}

impl Offer {
    /// Whether a demand with these flat properties satisfies the provider's own constraints.
    pub(crate) fn accepts(&self, demand: &Map<String, Value>) -> bool {
        self.expression.as_ref().is_some_and(|expression| expression.matches(demand))
    }

    /// `properties` and `constraints` as JSON fields, without braces: offers and proposals share
    /// them, in this order.
    pub(crate) fn terms_json(&self) -> String {
        let constraints = Value::from(self.constraints.as_str());
        let properties = Value::Object(self.properties.clone());
        format!(r#""properties":{properties},"constraints":{constraints}"#)
    }

    /// The offer as the scan lists it.
    pub(crate) fn json(&self) -> String {
        format!(
            r#"{{{},"offerId":"{}","providerId":"{}","timestamp":"{}"}}"#,
            self.terms_json(),
            self.offer_id,
            self.provider_id,
            clock::nanos(self.published)
        )
    }

    /// An offer taken from a recorded scan answer; `None` if it is not one.
    pub(crate) fn recorded(offer: &Value, lifetime: Duration) -> Option<Offer> {
        let text = |name: &str| offer.get(name).and_then(Value::as_str).map(str::to_owned);
        let published = clock::parse(&text("timestamp")?)?;
        let constraints = text("constraints")?;
        Some(Offer {
            offer_id: text("offerId")?,
            provider_id: text("providerId")?,
            properties: offer.get("properties")?.as_object()?.clone(),
            expression: Expression::parse(&constraints),
            constraints,
            published,
            expires: published + lifetime,
        })
    }

    /// A new offer on the model of the recorded ones.
    pub(crate) fn generate(
        rng: &mut StdRng,
        provider: &ProviderIdentity<'_>,
        runtime: &str,
        published: UnixTime,
        lifetime: Duration,
    ) -> Offer {
        let constraints = format!(
            "(&\n  (golem.srv.comp.expiration>{})\n  ({SUBNET}={})\n)",
            published.as_millis(),
            provider.subnet
        );
        Offer {
            offer_id: subscription_id(rng),
            provider_id: provider.id.to_owned(),
            properties: flatten(&properties(rng, provider, runtime)),
            expression: Expression::parse(&constraints),
            constraints,
            published,
            expires: published + lifetime,
        }
    }
}

/// What an offer says about who publishes it.
pub(crate) struct ProviderIdentity<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) subnet: &'a str,
    pub(crate) public: bool,
}

fn properties(rng: &mut StdRng, provider: &ProviderIdentity<'_>, runtime: &str) -> Value {
    let cores: u32 = rng.random_range(1..=32);
    let step = f64::from(rng.random_range(1_u32..=20));
    // Real agents differ in the order of the usage vector, and the prices follow it.
    let swapped = rng.random_bool(0.5);
    let (per_second, per_cpu) = (5.555e-6 * step, 0.000_027_777_777_777 * step);
    let usage = ["golem.usage.duration_sec", "golem.usage.cpu_sec"];
    let (usage, prices) = if swapped {
        ([usage[1], usage[0]], [per_cpu, per_second, 0.0])
    } else {
        (usage, [per_second, per_cpu, 0.0])
    };
    let mut properties = json!({
        "golem.com.payment.debit-notes.accept-timeout?": 240,
        "golem.com.payment.platform.erc20-polygon-glm.address": provider.id,
        "golem.com.payment.protocol.version": 3,
        "golem.com.pricing.model": "linear",
        "golem.com.pricing.model.linear.coeffs": prices,
        "golem.com.scheme": "payu",
        "golem.com.scheme.payu.debit-note.interval-sec?": 120,
        "golem.com.scheme.payu.payment-timeout-sec?": 120,
        "golem.com.usage.vector": usage,
        "golem.inf.cpu.architecture": "x86_64",
        "golem.inf.cpu.brand": "AMD Ryzen 9 5950X 16-Core Processor",
        "golem.inf.cpu.capabilities": ["sse3", "pclmulqdq", "avx2", "aes"],
        "golem.inf.cpu.cores": cores,
        "golem.inf.cpu.model": "Stepping 0 Family 25 Model 33",
        "golem.inf.cpu.threads": cores * 2,
        "golem.inf.cpu.vendor": "AuthenticAMD",
        "golem.inf.mem.gib": f64::from(cores) * 2.0 + 0.612_468_048_930_168,
        "golem.inf.storage.gib": 81.722_778_320_312_5,
        "golem.node.debug.subnet": provider.subnet,
        "golem.node.id.name": provider.name,
        "golem.node.net.is-public": provider.public,
        "golem.runtime.capabilities": ["inet", "vpn", "manifest-support", "start-entrypoint"],
        "golem.runtime.name": runtime,
        "golem.runtime.version": "0.5.3",
        "golem.srv.caps.multi-activity": true,
        "golem.srv.caps.payload-manifest": true,
    });
    if runtime == "wasmtime" {
        // The second shape the real agent publishes: an empty object beside its own children,
        // and a key with a version suffix.
        properties["golem.com.scheme.payu"] = json!({});
        properties["golem.runtime.capabilities"] = json!([]);
        properties["golem.runtime.wasm.wasi.version@v"] = json!("0.9.0");
    }
    properties
}

/// `0x` and 40 lower-case hex digits.
pub(crate) fn node_id(rng: &mut StdRng) -> String {
    format!("0x{}", hex(rng, 40))
}

/// 32 hex digits, a dash, 64 hex digits: what offers and demands are called.
pub(crate) fn subscription_id(rng: &mut StdRng) -> String {
    format!("{}-{}", hex(rng, 32), hex(rng, 64))
}

pub(crate) fn hex(rng: &mut StdRng, digits: usize) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    (0..digits).map(|_| char::from(HEX[rng.random_range(0..16)])).collect()
}
