//! The market's constraint language, the LDAP-like part of it that the recordings use.
//!
//! Owns parsing and three-valued evaluation over flat properties, and the flattening of nested
//! ones. Refuses to know what an offer or a demand is.
//!
//! ```text
//! expression = "(" [ "&" expression* | "|" expression* | "!" expression | comparison ] ")"
//! comparison = name ( "=" | ">" | ">=" | "<" | "<=" ) value
//! ```
//!
//! White space is free between expressions. `()` and `(&)` hold for everything, as recorded; the
//! empty string is not an expression. A comparison with a property that is not there is
//! undefined, and undefined does not match: that is why a demand without an expiration gets
//! nothing.

use serde_json::{Map, Value};

/// Deeper nesting is refused, so that no input can exhaust the stack.
const DEPTH_MAX: usize = 64;

/// A parsed constraint.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expression {
    /// `()`: holds for everything.
    Anything,
    /// `(&…)`.
    All(Vec<Expression>),
    /// `(|…)`.
    Any(Vec<Expression>),
    /// `(!…)`.
    Not(Box<Expression>),
    /// `(name OP value)`.
    Compare {
        /// The flat property name.
        name: String,
        /// The relation between property and value.
        relation: Relation,
        /// The right-hand side as written.
        value: String,
    },
}

/// How a property is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// `=`; the value may hold `*`, and `=*` asks for presence.
    Equal,
    /// `>`.
    Greater,
    /// `>=`.
    GreaterOrEqual,
    /// `<`.
    Less,
    /// `<=`.
    LessOrEqual,
}

impl Expression {
    /// Parses a whole constraint; `None` if it is not one.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Expression> {
        let mut reader = Reader { rest: text };
        let expression = reader.expression(0)?;
        reader.skip_space();
        reader.rest.is_empty().then_some(expression)
    }

    /// Whether flat `properties` satisfy this; undefined counts as no.
    #[must_use]
    pub(crate) fn matches(&self, properties: &Map<String, Value>) -> bool {
        self.evaluate(properties) == Some(true)
    }

    /// `None` is undefined: a property the answer hangs on is missing or not comparable.
    fn evaluate(&self, properties: &Map<String, Value>) -> Option<bool> {
        match self {
            Expression::Anything => Some(true),
            Expression::Not(inner) => inner.evaluate(properties).map(|held| !held),
            Expression::All(parts) => decide(parts, properties, false),
            Expression::Any(parts) => decide(parts, properties, true),
            Expression::Compare { name, relation, value } => {
                compare(properties.get(name)?, *relation, value)
            }
        }
    }
}

/// A conjunction is decided by the first `false`, a disjunction by the first `true`.
fn decide(parts: &[Expression], properties: &Map<String, Value>, by: bool) -> Option<bool> {
    let mut undefined = false;
    for part in parts {
        match part.evaluate(properties) {
            Some(held) if held == by => return Some(by),
            Some(_) => {}
            None => undefined = true,
        }
    }
    (!undefined).then_some(!by)
}

fn compare(property: &Value, relation: Relation, literal: &str) -> Option<bool> {
    if relation == Relation::Equal && literal == "*" {
        return Some(true);
    }
    if let Value::Array(items) = property {
        return Some(items.iter().any(|item| compare(item, relation, literal) == Some(true)));
    }
    let text = match property {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    // An expiration written as a JSON string is compared as a number all the same, as recorded.
    let order = match (text.parse::<f64>(), literal.parse::<f64>()) {
        (Ok(left), Ok(right)) => left.partial_cmp(&right)?,
        _ if property.is_number() => return None,
        _ if relation == Relation::Equal => return Some(glob(literal, &text)),
        _ => text.as_str().cmp(literal),
    };
    Some(match relation {
        Relation::Equal => order.is_eq(),
        Relation::Greater => order.is_gt(),
        Relation::GreaterOrEqual => order.is_ge(),
        Relation::Less => order.is_lt(),
        Relation::LessOrEqual => order.is_le(),
    })
}

/// `*` stands for any text.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(rest) = text.strip_prefix(head) else {
        return false;
    };
    rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| glob(tail, &rest[at..]))
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.skip_space();
        let Some(rest) = self.rest.strip_prefix(token) else {
            return false;
        };
        self.rest = rest;
        true
    }

    fn expression(&mut self, depth: usize) -> Option<Expression> {
        if depth > DEPTH_MAX || !self.eat("(") {
            return None;
        }
        let expression = if self.eat("&") {
            Expression::All(self.list(depth)?)
        } else if self.eat("|") {
            Expression::Any(self.list(depth)?)
        } else if self.eat("!") {
            Expression::Not(Box::new(self.expression(depth + 1)?))
        } else if self.rest.starts_with(')') {
            Expression::Anything
        } else {
            self.comparison()?
        };
        self.eat(")").then_some(expression)
    }

    fn list(&mut self, depth: usize) -> Option<Vec<Expression>> {
        let mut parts = Vec::new();
        loop {
            self.skip_space();
            if self.rest.starts_with(')') {
                return Some(parts);
            }
            parts.push(self.expression(depth + 1)?);
        }
    }

    fn comparison(&mut self) -> Option<Expression> {
        let end = self.rest.find(['(', ')'])?;
        if !self.rest[end..].starts_with(')') {
            return None;
        }
        let (body, rest) = self.rest.split_at(end);
        let at = body.find(['=', '<', '>'])?;
        let (name, tail) = body.split_at(at);
        let (relation, width) = match tail.as_bytes() {
            [b'>', b'=', ..] => (Relation::GreaterOrEqual, 2),
            [b'<', b'=', ..] => (Relation::LessOrEqual, 2),
            [b'>', ..] => (Relation::Greater, 1),
            [b'<', ..] => (Relation::Less, 1),
            _ => (Relation::Equal, 1),
        };
        let (name, value) = (name.trim(), tail[width..].trim());
        if name.is_empty() {
            return None;
        }
        self.rest = rest;
        Some(Expression::Compare { name: name.to_owned(), relation, value: value.to_owned() })
    }
}

/// Flattens nested properties into dotted names.
///
/// Properties of the wrong type, and none at all, end up under the empty name: the daemon lists
/// such demands as `{"": …}` [1i].
#[must_use]
pub(crate) fn flatten(properties: &Value) -> Map<String, Value> {
    let mut flat = Map::new();
    flatten_into(String::new(), properties, &mut flat);
    flat
}

fn flatten_into(path: String, value: &Value, flat: &mut Map<String, Value>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, inner) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten_into(path, inner, flat);
            }
        }
        other => {
            flat.insert(path, other.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn holds(constraint: &str) -> Option<bool> {
        let properties = flatten(&json!({
            "subnet": "public", "cores": 6, "caps": ["vpn", "inet"], "public": false,
            "srv": {"expiration": "1795472282811"}, "price": 5.555e-6,
        }));
        Expression::parse(constraint).map(|expression| expression.matches(&properties))
    }

    #[test]
    fn table() {
        for (constraint, expected) in [
            ("()", Some(true)),
            ("(&)", Some(true)),
            ("(|)", Some(false)),
            ("", None),
            ("(&(subnet=public", None),
            ("(subnet=public)x", None),
            ("subnet=public", None),
            ("(=public)", None),
            ("(subnet)", None),
            ("(subnet=public)", Some(true)),
            ("(subnet=testnet)", Some(false)),
            ("(subnet=pub*)", Some(true)),
            ("(subnet=*lic)", Some(true)),
            ("(subnet=p*b*c)", Some(true)),
            ("(subnet=*)", Some(true)),
            ("(missing=*)", Some(false)),
            ("(!(missing=*))", Some(false)),
            ("(!(subnet=public))", Some(false)),
            ("(cores>=6)", Some(true)),
            ("(cores>6)", Some(false)),
            ("(cores<=6)", Some(true)),
            ("(cores<7)", Some(true)),
            ("(cores=6.0)", Some(true)),
            ("(price<0.001)", Some(true)),
            ("(srv.expiration>1795468573325)", Some(true)),
            ("(srv.expiration>1795472282811)", Some(false)),
            ("(caps=vpn)", Some(true)),
            ("(caps=gpu)", Some(false)),
            ("(public=false)", Some(true)),
            ("(&(subnet=public)\n\t(cores>=6))", Some(true)),
            ("(&\n  (srv.expiration>1)\n  (subnet=public)\n)", Some(true)),
            ("(&(missing=1)(subnet=public))", Some(false)),
            ("(|(missing=1)(subnet=public))", Some(true)),
        ] {
            assert_eq!(holds(constraint), expected, "{constraint}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = format!("{}{}", "(&".repeat(100_000), ")".repeat(100_000));
        assert_eq!(Expression::parse(&deep), None);
    }

    #[test]
    fn flattening_of_odd_properties() {
        assert_eq!(Value::Object(flatten(&json!("x"))), json!({"": "x"}));
        assert_eq!(Value::Object(flatten(&json!({}))), json!({"": {}}));
        assert_eq!(
            Value::Object(flatten(&json!({"a": {"b": 1, "c": {}}, "d.e": [2]}))),
            json!({"a.b": 1, "a.c": {}, "d.e": [2]})
        );
    }
}
