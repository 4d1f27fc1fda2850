//! A question that was refused: which field of it, why, and which argument that field comes from.
//!
//! Owns the way back from the names of the protos to those on the command line. What the message
//! says already is not said again.

use uptime_client::{Error, FieldFault};

/// What there is to say beyond the error's own words, line by line.
pub(crate) fn lines(error: &anyhow::Error) -> Vec<String> {
    let Some(Error::Refused { detail, faults }) = error.downcast_ref() else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    for FieldFault { field, why } in faults {
        let said = detail.contains(field.as_str()) && detail.contains(why.as_str());
        match (said, argument(field)) {
            (true, None) => {}
            (true, Some(argument)) => lines.push(format!("{field} comes from {argument}")),
            (false, None) => lines.push(format!("{field}: {why}")),
            (false, Some(argument)) => {
                lines.push(format!("{field}, which comes from {argument}: {why}"));
            }
        }
    }
    lines
}

/// The argument that a field is made of; `None`: it is not for people to say.
fn argument(field: &str) -> Option<&'static str> {
    let name = field.split_once('[').map_or(field, |(name, _)| name);
    match name {
        "id" | "ids" => Some("ID"),
        "round_unix_s" => Some("ROUND"),
        "window" | "window.from_unix_s" => Some("--from or --window"),
        "window.to_unix_s" => Some("--to"),
        "order" => Some("--order"),
        "page_size" => Some("--limit"),
        "filter.is_online" => Some("--online or --offline"),
        "filter.subnet" => Some("--subnet"),
        "filter.id_prefix" => Some("--id-prefix"),
        "filter.name_contains" => Some("--name"),
        "filter.include_retired" => Some("--retired"),
        "filter.members_only" => Some("--members"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(detail: &str, faults: &[(&str, &str)]) -> Vec<String> {
        let fault = |(field, why): &(&str, &str)| FieldFault {
            field: (*field).to_owned(),
            why: (*why).to_owned(),
        };
        let faults = faults.iter().map(fault).collect();
        lines(&anyhow::Error::from(Error::Refused { detail: detail.to_owned(), faults }))
    }

    #[test]
    fn each_field_is_told_once_and_with_its_argument() {
        assert_eq!(told("window.to_unix_s: too late", &[]), [""; 0]);
        assert_eq!(
            told("window.to_unix_s: too late", &[("window.to_unix_s", "too late")]),
            ["window.to_unix_s comes from --to"]
        );
        assert_eq!(told("page_token: old", &[("page_token", "old")]), [""; 0]);
        assert_eq!(
            told("two faults", &[("ids[3]", "no id"), ("page_token", "old"), ("order", "none")]),
            [
                "ids[3], which comes from ID: no id",
                "page_token: old",
                "order, which comes from --order: none"
            ]
        );
        assert_eq!(lines(&anyhow::anyhow!("something else")), [""; 0]);
    }
}
