//! `/api/v1/openapi.json`: what `/api/v1` answers, for machines.
//!
//! Owns the OpenAPI 3.1 document. Made from the list of routes and from the descriptors of the
//! messages, so nothing of either is written down here; a test holds the document to both, and what
//! is really answered to the document.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use prost_reflect::{Cardinality, EnumDescriptor, FieldDescriptor, Kind as Of, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::api::{Kind, ORDERS, Parameter, ROUTES, Route};
use super::error::STATUSES;
use super::json::{JsonError, message};
use super::query_params::TEXT_BYTES_MAX;

/// The greatest whole number that every reader of JSON keeps exactly.
const EXACT_MAX: u64 = (1 << 53) - 1;

const DESCRIPTION: &str = "What the gRPC service golem.uptime.v1.UptimeQuery answers, as JSON. \
     Names are those of the protos; fields without a value stand with their default, but those \
     that are optional are left out; enum values go by name; bytes are base64. Whole numbers of \
     64 bits are JSON numbers with all their digits; none here comes near 2^53, beyond which \
     readers that keep doubles would round. Unknown parameters are refused. Every answer says \
     how fresh it is.";

/// The document as text, made once.
///
/// # Errors
/// As [`document`].
pub(super) fn text() -> Result<&'static str, &'static JsonError> {
    static TEXT: OnceLock<Result<String, JsonError>> = OnceLock::new();
    let text = TEXT.get_or_init(|| document().map(|document| format!("{document:#}\n")));
    text.as_ref().map(String::as_str)
}

/// The document.
///
/// # Errors
/// When a route names a message that the descriptors do not have.
fn document() -> Result<Value, JsonError> {
    let mut schemas = BTreeMap::new();
    let mut paths = Map::new();
    for route in &ROUTES {
        collect(&message(route.response)?, &mut schemas);
        paths.insert(route.path.to_owned(), json!({ "get": operation(route) }));
    }
    schemas.insert("Error".to_owned(), error_schema());
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Golem Uptime",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": "MIT", "identifier": "MIT" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": { "schemas": schemas },
    }))
}

fn operation(route: &Route) -> Value {
    let mut parameters = Vec::new();
    if route.path.contains("{id}") {
        parameters.push(json!({
            "name": "id",
            "in": "path",
            "required": true,
            "description": "The node's id.",
            "schema": { "type": "string", "pattern": "^0[xX][0-9a-fA-F]{40}$" },
        }));
    }
    parameters.extend(route.parameters.iter().map(|parameter| query_parameter(parameter)));
    let words: Vec<&str> = route.path.split(['/', '{', '}']).collect();
    let operation_id = words[3..].iter().filter(|word| !word.is_empty()).copied();
    json!({
        "operationId": operation_id.collect::<Vec<_>>().join("_"),
        "summary": route.what,
        "description": format!("The query service's {}({}).", route.method, route.request),
        "parameters": parameters,
        "responses": {
            "200": {
                "description": route.response,
                "content": { "application/json": { "schema": reference(route.response) } },
            },
            "default": {
                "description": "Refused, or not possible now.",
                "content": { "application/json": { "schema": reference("Error") } },
            },
        },
    })
}

fn query_parameter(parameter: &Parameter) -> Value {
    let schema = match parameter.kind {
        Kind::Text => json!({ "type": "string", "maxLength": TEXT_BYTES_MAX }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::PageSize => json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
        Kind::Ids => json!({
            "type": "array",
            "items": { "type": "string", "pattern": "^0[xX][0-9a-fA-F]{40}$" },
            "maxItems": super::api::IDS_MAX,
        }),
        Kind::Order => {
            let words: Vec<_> = ORDERS.iter().map(|(word, _)| word).collect();
            json!({ "type": "string", "enum": words })
        }
        Kind::Instant => json!({
            "type": "string",
            "examples": ["2026-01-31", "2026-01-31T12:00:00Z", "1769860800"],
        }),
        Kind::Span => json!({ "type": "string", "examples": ["24h", "7d", "all"] }),
    };
    let mut described = json!({
        "name": parameter.name,
        "in": "query",
        "required": false,
        "description": parameter.what,
        "schema": schema,
    });
    if parameter.kind == Kind::Ids {
        described["style"] = json!("form");
        described["explode"] = json!(false);
    }
    described
}

fn error_schema() -> Value {
    let codes: Vec<&str> = STATUSES.iter().map(|(_, name, _)| *name).collect();
    json!({
        "type": "object",
        "required": ["code", "message"],
        "properties": {
            "code": { "type": "string", "enum": codes },
            "message": { "type": "string", "description": "What was wrong and what to do." },
            "field": { "type": "string", "description": "The parameter it is about." },
        },
    })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// The schemas of a message and of all that it holds.
fn collect(message: &MessageDescriptor, schemas: &mut BTreeMap<String, Value>) {
    if schemas.contains_key(message.name()) {
        return;
    }
    // Before what it holds, so that a message in itself would end.
    schemas.insert(message.name().to_owned(), Value::Null);
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in message.fields() {
        match field.kind() {
            Of::Message(held) => collect(&held, schemas),
            Of::Enum(held) => {
                schemas.entry(held.name().to_owned()).or_insert_with(|| enum_schema(&held));
            }
            _ => {}
        }
        if !field.supports_presence() {
            required.push(field.name().to_owned());
        }
        properties.insert(field.name().to_owned(), field_schema(&field));
    }
    let mut schema = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schemas.insert(message.name().to_owned(), schema);
}

fn enum_schema(held: &EnumDescriptor) -> Value {
    let names: Vec<String> = held.values().map(|value| value.name().to_owned()).collect();
    json!({ "type": "string", "enum": names })
}

fn field_schema(field: &FieldDescriptor) -> Value {
    let one = match field.kind() {
        Of::Message(held) => reference(held.name()),
        Of::Enum(held) => reference(held.name()),
        Of::Bool => json!({ "type": "boolean" }),
        Of::Double | Of::Float => json!({ "type": "number" }),
        Of::String => json!({ "type": "string" }),
        Of::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
        Of::Uint32 | Of::Fixed32 => {
            json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX })
        }
        Of::Uint64 | Of::Fixed64 => {
            json!({ "type": "integer", "minimum": 0, "maximum": EXACT_MAX })
        }
        Of::Int32 | Of::Sint32 | Of::Sfixed32 => json!({ "type": "integer", "format": "int32" }),
        Of::Int64 | Of::Sint64 | Of::Sfixed64 => json!({ "type": "integer", "format": "int64" }),
    };
    if field.cardinality() == Cardinality::Repeated {
        json!({ "type": "array", "items": one })
    } else {
        one
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::web::json::pool;

    fn words(list: &Value) -> BTreeSet<String> {
        let list = list.as_array().into_iter().flatten();
        list.map(|word| word.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn every_route_stands_in_the_document_and_nothing_else() {
        let document = document().unwrap();
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(paths.len(), ROUTES.len());
        let service = pool().unwrap().get_service_by_name("golem.uptime.v1.UptimeQuery").unwrap();
        let mut operation_ids = BTreeSet::new();
        for route in &ROUTES {
            let get = &paths[route.path]["get"];
            assert!(operation_ids.insert(get["operationId"].as_str().unwrap().to_owned()));
            let named: BTreeSet<String> = get["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
                .collect();
            let mut wanted: BTreeSet<String> =
                route.parameters.iter().map(|parameter| parameter.name.to_owned()).collect();
            if route.path.contains("{id}") {
                wanted.insert("id".to_owned());
            }
            assert_eq!(named, wanted, "{}", route.path);
            let method = service.methods().find(|method| method.name() == route.method).unwrap();
            assert_eq!(method.input().name(), route.request);
            assert_eq!(method.output().name(), route.response);
            let answered = &get["responses"]["200"]["content"]["application/json"]["schema"];
            assert_eq!(answered, &reference(route.response));
        }
    }

    /// Each parameter is a field of the request that it fills, or of the filter in it.
    #[test]
    fn every_parameter_is_a_field_of_its_request() {
        for route in &ROUTES {
            let request = message(route.request).unwrap();
            let mut fields: BTreeSet<String> =
                request.fields().map(|field| field.name().to_owned()).collect();
            if fields.contains("filter") {
                let filter = message("NodeFilter").unwrap();
                fields.extend(filter.fields().map(|field| field.name().to_owned()));
            }
            for parameter in route.parameters {
                let field = match parameter.name {
                    "from" | "to" => "window",
                    "round" => "round_unix_s",
                    name => name,
                };
                assert!(fields.contains(field), "{}: {field}", route.path);
            }
            if request.fields().any(|field| field.name() == "filter") {
                let filter = message("NodeFilter").unwrap();
                for field in filter.fields() {
                    let known = route.parameters.iter().any(|one| one.name == field.name());
                    assert!(known, "{} cannot ask for {}", route.path, field.name());
                }
            }
        }
    }

    #[test]
    fn every_schema_has_the_fields_of_its_message() {
        let document = document().unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for (name, schema) in schemas.iter().filter(|(name, _)| *name != "Error") {
            let full_name = format!("golem.uptime.v1.{name}");
            if let Some(held) = pool().unwrap().get_enum_by_name(&full_name) {
                let wanted = held.values().map(|value| value.name().to_owned()).collect();
                assert_eq!(words(&schema["enum"]), wanted, "{name}");
                continue;
            }
            let message = message(name).unwrap();
            let fields = schema["properties"].as_object().unwrap();
            let found: BTreeSet<&str> = fields.keys().map(String::as_str).collect();
            let descriptors: Vec<_> = message.fields().collect();
            let wanted: BTreeSet<&str> = descriptors.iter().map(FieldDescriptor::name).collect();
            assert_eq!(found, wanted, "{name}");
        }
        // Every reference leads somewhere.
        let text = document.to_string();
        for piece in text.split("#/components/schemas/").skip(1) {
            let name = piece.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
    }

    #[test]
    fn orders_are_those_of_the_proto() {
        let orders = pool().unwrap().get_enum_by_name("golem.uptime.v1.NodeOrder").unwrap();
        let wanted: BTreeSet<String> = orders
            .values()
            .filter(|value| value.number() != 0)
            .map(|value| value.name().trim_start_matches("NODE_ORDER_").to_lowercase())
            .collect();
        let found: BTreeSet<String> = ORDERS.iter().map(|(word, _)| (*word).to_owned()).collect();
        assert_eq!(found, wanted);
    }
}
