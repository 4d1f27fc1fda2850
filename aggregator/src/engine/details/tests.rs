//! The table against a plain map, over readers, long records and a file that is written anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;

fn details(name: &str, runtime: &str, changed_s: u64) -> Details {
    let networks = vec!["polygon".to_owned()];
    let (name, runtime) = (name.to_owned(), runtime.to_owned());
    Details { name, runtime, runtime_version: "0.4.2".to_owned(), networks, changed_s }
}

fn table() -> (tempfile::TempDir, DetailsTable) {
    let place = tempfile::tempdir().unwrap();
    let table = DetailsTable::new(place.path()).unwrap();
    (place, table)
}

fn all(told: &NodeMetadata) -> BTreeMap<u32, Details> {
    told.records::<Record>().map(|(number, record)| (number, record.into())).collect()
}

#[test]
fn what_was_said_comes_back_and_readers_keep_what_they_had() {
    let (_place, mut table) = table();
    let said = [(3, details("ada", "vm", 30)), (100, details("bob", "vm", 30))];
    table.set(said.into()).unwrap();
    let before = table.told();
    assert!(table.is_known(3, &details("ada", "vm", 90)), "whenever it was said");
    assert!(!table.is_known(3, &details("ada", "wasm", 30)));
    assert!(!table.is_known(4, &details("ada", "vm", 30)));
    table.set([(3, details("eve", "wasm", 60))].into()).unwrap();
    let after = table.told();
    assert_eq!(before.get(3), Some(details("ada", "vm", 30)));
    assert_eq!(after.get(3), Some(details("eve", "wasm", 60)));
    assert_eq!((after.get(4), after.get(7_000)), (None, None));
    assert_eq!(after.changed_since(&before).iter().collect::<Vec<_>>(), [3]);
    let names = after.names();
    let shown = [2, 3, 4, 100, 101, 9_000].map(|number| names.of(number).to_owned());
    assert_eq!(shown, ["", "eve", "", "bob", "", ""]);
    assert_eq!(after.named(|name| name.contains('o')), [100].into());
    assert_eq!(after.changed_after(60), [3].into());
    assert!(
        NodeMetadata::default().get(3).is_none()
            && NodeMetadata::default().names().of(3).is_empty()
    );
}

#[test]
fn nothing_of_it_is_to_be_found_in_the_directory() {
    let (place, mut table) = table();
    table.set([(1, details("ada", "vm", 30))].into()).unwrap();
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    assert!(DetailsTable::new(&place.path().join("nowhere")).is_err());
}

#[test]
fn records_longer_than_one_reading_come_whole() {
    let (_place, mut table) = table();
    let long = |length: usize| details(&"x".repeat(length), "vm", 0);
    let lengths = [ONE_BYTES - 40, ONE_BYTES, ONE_BYTES + 1, MANY_BYTES - 40, 3 * MANY_BYTES, 1];
    let said: BTreeMap<u32, Details> = (0..).zip(lengths.map(long)).collect();
    table.set(said.clone()).unwrap();
    for (number, details) in &said {
        assert_eq!(table.told().get(*number).as_ref(), Some(details));
    }
    assert_eq!(all(&table.told()), said);
}

#[test]
fn a_file_that_ends_too_early_shows_fewer_details_and_nothing_wrong() {
    let (_place, mut table) = table();
    let said: BTreeMap<u32, Details> =
        (0..200).map(|number| (number, details(&format!("node {number}"), "vm", 1))).collect();
    table.set(said.clone()).unwrap();
    let told = table.told();
    for end in [table.end - ALIGN, table.end / 2 + 3, 2, 0] {
        told.file.as_ref().unwrap().set_len(end).unwrap();
        let left = all(&told);
        assert!(left.len() < said.len());
        assert!(left.iter().all(|(number, details)| said[number] == *details));
    }
}

#[test]
fn what_nobody_says_any_more_goes_in_the_end() {
    let (_place, mut table) = table();
    let mut said = BTreeMap::new();
    for turn in 0..40u64 {
        let before = table.told();
        let new: BTreeMap<u32, Details> =
            (0..500).map(|number| (number, details(&"n".repeat(200), "vm", turn))).collect();
        said.extend(new.clone());
        table.set(new).unwrap();
        assert_eq!(table.told().changed_since(&before).len(), 500);
        let other = table.told();
        table.set([(7, details("seven", "vm", turn))].into()).unwrap();
        said.insert(7, details("seven", "vm", turn));
        let changed: Vec<u32> = table.told().changed_since(&other).iter().collect();
        assert_eq!(changed, [7], "also where the file was written anew");
    }
    assert_eq!(all(&table.told()), said);
    assert!(table.end < 3 * OUTDATED_BYTES_MIN, "{}", table.end);
}

proptest! {
    /// Any course of changes; at any moment a reader goes on seeing what it saw.
    #[test]
    fn it_is_a_map(
        steps in prop::collection::vec(
            prop::collection::btree_map(0u32..80, ("[a-c]{0,3}", 0u64..4), 0..30), 1..20),
    ) {
        let (_place, mut table) = table();
        let (mut map, mut readers) = (BTreeMap::new(), Vec::new());
        for step in steps {
            let step: BTreeMap<u32, Details> = step
                .into_iter()
                .map(|(number, (name, at))| (number, details(&name, "vm", at)))
                .collect();
            map.extend(step.clone());
            table.set(step).unwrap();
            readers.push((table.told(), map.clone()));
        }
        for (told, map) in &readers {
            prop_assert_eq!(&all(told), map);
            let names = told.names();
            for number in 0..90 {
                prop_assert_eq!(told.get(number), map.get(&number).cloned());
                let name = map.get(&number).map_or("", |details| details.name.as_str());
                prop_assert_eq!(names.of(number), name);
            }
        }
        for pair in readers.windows(2) {
            let [(earlier, before), (later, after)] = pair else { continue };
            let changed: Vec<u32> = later.changed_since(earlier).into_iter().collect();
            let wanted: Vec<u32> =
                (0..80).filter(|number| before.get(number) != after.get(number)).collect();
            prop_assert_eq!(changed, wanted);
        }
    }
}
