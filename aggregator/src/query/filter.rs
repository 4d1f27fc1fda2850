//! Which nodes a filter lets through.
//!
//! Owns what each field of a filter means. Ids come in order, so that those with one beginning are
//! a stretch: where it starts is found here, too, and nobody has to look at all nodes for a few.

use uptime_accounting::snapshot::NodeView;
use uptime_proto::node_id::NODE_ID_BYTES;
use uptime_proto::{NodeId, v1};

use crate::engine::Snapshot;

/// Whether a filter lets a node through.
pub(super) fn wanted(view: &NodeView<'_>, filter: &v1::NodeFilter, snapshot: &Snapshot) -> bool {
    filter.is_online.is_none_or(|online| online == view.is_online)
        && (filter.subnet.is_empty() || view.subnets.contains(&filter.subnet.as_str()))
        && begins(&view.id, &filter.id_prefix)
        && (filter.include_retired || !view.retired)
        && (!filter.members_only || snapshot.is_member(view.number))
        && (filter.name_contains.is_empty() || has_name(view.number, filter, snapshot))
}

fn has_name(number: u32, filter: &v1::NodeFilter, snapshot: &Snapshot) -> bool {
    let details = snapshot.details.get(number);
    details.is_some_and(|details| details.name.contains(&filter.name_contains))
}

/// Whether an id, as it is printed, begins so; capitals are taken for small letters.
pub(super) fn begins(id: &NodeId, prefix: &str) -> bool {
    let digit = |at: usize| {
        let byte = id.as_bytes().get(at / 2)?;
        let nibble = if at.is_multiple_of(2) { byte >> 4 } else { byte & 15 };
        char::from_digit(u32::from(nibble), 16)
    };
    prefix.chars().enumerate().all(|(at, wanted)| {
        let there = match at {
            0 => Some('0'),
            1 => Some('x'),
            _ => digit(at - 2),
        };
        there == Some(wanted.to_ascii_lowercase())
    })
}

/// The lowest id with this prefix; `None`: no id has it.
pub(super) fn lowest(prefix: &str) -> Option<NodeId> {
    let mut bytes = [0; NODE_ID_BYTES];
    for (at, digit) in prefix.chars().skip(2).enumerate() {
        let nibble = u8::try_from(digit.to_digit(16)?).ok()?;
        *bytes.get_mut(at / 2)? |= if at.is_multiple_of(2) { nibble << 4 } else { nibble };
    }
    let lowest = NodeId::new(bytes);
    begins(&lowest, prefix).then_some(lowest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_begins_as_it_is_printed() {
        let mut bytes = [0x5a; NODE_ID_BYTES];
        bytes[0] = 0xbc;
        let id = NodeId::new(bytes);
        let whole = id.to_string();
        for end in 0..=whole.len() {
            assert!(begins(&id, &whole[..end]) && begins(&id, &whole[..end].to_uppercase()));
            let lowest = lowest(&whole[..end]).expect("some id begins so");
            assert!(begins(&lowest, &whole[..end]) && lowest <= id, "{lowest}");
            let rest = &lowest.to_string()[end.max(2)..];
            assert!(rest.chars().all(|digit| digit == '0'), "{lowest} is the lowest");
        }
        for wrong in ["1", "0y", "0xb0", "0xg", "bc", "0xbc5a ", &format!("{whole}5")] {
            assert!(!begins(&id, wrong), "{wrong}");
        }
        for none in ["1", "0y", "0xg", "bc", "0xbc5a ", &format!("{whole}5"), "0x\u{ff11}"] {
            assert_eq!(lowest(none), None, "{none}");
        }
    }
}
