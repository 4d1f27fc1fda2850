//! Places and rates, in tables.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

fn slots(connections_max: u32, connections_per_address_max: u32) -> Slots {
    Slots::new(Limits { connections_max, connections_per_address_max, ..Limits::default() })
}

#[test]
fn one_address_takes_its_share_and_settled_ones_stay() {
    let slots = slots(100, 3);
    let mut held: Vec<Slot> = (0..3).map(|_| slots.take(address(1)).unwrap()).collect();
    held[1].settle();
    // The oldest that has not settled makes room, of this address only.
    let other = slots.take(address(2)).unwrap();
    held.push(slots.take(address(1)).unwrap());
    let pushed: Vec<bool> = held.iter().map(|slot| slot.pushed_out.is_cancelled()).collect();
    assert_eq!(pushed, [true, false, false, false]);
    assert!(!other.pushed_out.is_cancelled());
    held[2].settle();
    held[3].settle();
    assert_eq!(slots.take(address(1)).err(), Some(Refusal::ConnectionsOfAddress));
    // The place of one that was pushed out is not given back twice.
    drop(held.remove(0));
    assert_eq!(slots.take(address(1)).err(), Some(Refusal::ConnectionsOfAddress));
    drop(held.remove(0));
    assert!(slots.take(address(1)).is_ok());
}

#[test]
fn all_together_have_a_limit_and_newcomers_a_smaller_one() {
    let tight = slots(2, 2);
    let held: Vec<Slot> = (1..=2).map(|number| tight.take(address(number)).unwrap()).collect();
    held.iter().for_each(Slot::settle);
    assert_eq!(tight.take(address(3)).err(), Some(Refusal::Connections));
    drop(held);
    assert!(tight.take(address(3)).is_ok());

    let wide = slots(10_000, 10_000);
    let held: Vec<Slot> = (0..300).map(|_| wide.take(address(1)).unwrap()).collect();
    let pushed = held.iter().filter(|slot| slot.pushed_out.is_cancelled()).count();
    assert_eq!(pushed, 300 - NEWCOMERS_MAX);
    let table = wide.table();
    assert_eq!((table.open.len(), table.newcomers.len()), (NEWCOMERS_MAX, NEWCOMERS_MAX));
    drop(table);
    drop(held);
    let table = wide.table();
    assert!(table.open.is_empty() && table.by_origin.is_empty() && table.newcomers.is_empty());
}

#[test]
fn a_network_of_ipv6_is_one_address() {
    let one: Ipv6Addr = "2001:db8:1:2:3:4:5:6".parse().unwrap();
    let two: Ipv6Addr = "2001:db8:1:2:ffff::1".parse().unwrap();
    let other: Ipv6Addr = "2001:db8:1:3::1".parse().unwrap();
    assert_eq!(origin(one.into()), origin(two.into()));
    assert_ne!(origin(one.into()), origin(other.into()));
    let mapped: Ipv6Addr = "::ffff:10.0.0.1".parse().unwrap();
    assert_eq!(origin(mapped.into()), address(1));
}

#[test]
fn whoever_hands_in_too_much_waits_and_nobody_else_does() {
    let rates = Rates::new(Limits { parts_per_s_max: 10, ..Limits::default() });
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    // What a burst allows, at once.
    assert_eq!(rates.charge(1, 100, at(0)), Duration::ZERO);
    assert_eq!(rates.charge(1, 20, at(0)), Duration::from_secs(2));
    assert_eq!(rates.owed(1, at(0)), Duration::from_secs(2));
    assert_eq!(rates.charge(2, 100, at(0)), Duration::ZERO, "another one");
    // Whoever waits as told is back at nothing, and pays for what it hands in then.
    assert_eq!(rates.charge(1, 10, at(2)), Duration::from_secs(1));
    // A report without parts costs one; a clock that goes back gives nothing.
    assert_eq!(rates.charge(1, 0, at(1)), Duration::from_millis(1_100));
    // A long pause fills the bucket and no more.
    assert_eq!(rates.charge(1, 100, at(1_000)), Duration::ZERO);
    assert_eq!(rates.charge(1, 1, at(1_000)), Duration::from_millis(100));
}
