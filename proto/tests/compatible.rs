//! What a release said on the wire, later ones understand.
//!
//! Owns the comparison with the descriptors of releases, `fixtures/VERSION/descriptor.bin`. Fields
//! may be added, and so may values, messages and calls. Nothing that a release had is renumbered,
//! renamed or of another type.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

use protox::prost_reflect::{DescriptorPool, EnumDescriptor, MessageDescriptor, ServiceDescriptor};
use uptime_proto::DESCRIPTOR;

const RELEASES: [&str; 1] = ["v0.1.0"];

fn message_faults(old: &MessageDescriptor, new: &DescriptorPool) -> Vec<String> {
    let name = old.full_name();
    let Some(new) = new.get_message_by_name(name) else {
        return vec![format!("{name} is gone")];
    };
    let fault = |field: protox::prost_reflect::FieldDescriptor| {
        let what = format!("{name}.{} = {}", field.name(), field.number());
        let Some(there) = new.get_field(field.number()) else {
            return Some(format!("{what} is gone"));
        };
        let told = |field: &protox::prost_reflect::FieldDescriptor| {
            let one_of = field.containing_oneof().map(|it| it.name().to_owned());
            let form = (field.cardinality(), field.is_list(), field.is_map(), one_of);
            (field.name().to_owned(), format!("{:?}", field.kind()), form)
        };
        (told(&field) != told(&there)).then(|| format!("{what} became {:?}", told(&there)))
    };
    old.fields().filter_map(fault).collect()
}

fn enum_faults(old: &EnumDescriptor, new: &DescriptorPool) -> Vec<String> {
    let name = old.full_name();
    let Some(new) = new.get_enum_by_name(name) else {
        return vec![format!("{name} is gone")];
    };
    let faults = old.values().filter(|value| {
        new.get_value(value.number()).is_none_or(|there| there.name() != value.name())
    });
    faults.map(|value| format!("{} = {} changed", value.full_name(), value.number())).collect()
}

fn service_faults(old: &ServiceDescriptor, new: &DescriptorPool) -> Vec<String> {
    let name = old.full_name();
    let Some(new) = new.get_service_by_name(name) else {
        return vec![format!("{name} is gone")];
    };
    let faults = old.methods().filter(|method| {
        let told = |method: &protox::prost_reflect::MethodDescriptor| {
            let types =
                (method.input().full_name().to_owned(), method.output().full_name().to_owned());
            (types, method.is_client_streaming(), method.is_server_streaming())
        };
        let there = new.methods().find(|there| there.name() == method.name());
        there.is_none_or(|there| told(&there) != told(method))
    });
    faults.map(|method| format!("{} changed", method.full_name())).collect()
}

fn faults(old: &DescriptorPool, new: &DescriptorPool) -> Vec<String> {
    let messages = old.all_messages().flat_map(|message| message_faults(&message, new));
    let enums = old.all_enums().flat_map(|old| enum_faults(&old, new));
    let services = old.services().flat_map(|service| service_faults(&service, new));
    messages.chain(enums).chain(services).collect()
}

#[test]
fn nothing_that_a_release_said_has_another_meaning() {
    let new = DescriptorPool::decode(DESCRIPTOR).unwrap();
    for release in RELEASES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(release)
            .join("descriptor.bin");
        let old = DescriptorPool::decode(std::fs::read(path).unwrap().as_slice()).unwrap();
        assert!(old.all_messages().len() > 50, "{release}");
        assert_eq!(faults(&old, &new), Vec::<String>::new(), "since {release}");
        // The comparison sees what is missing: the new one has messages that the old one lacks.
        assert!(!faults(&new, &old).is_empty(), "{release}");
    }
}
