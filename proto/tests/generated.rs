//! Proves that the committed code under `src/gen` is what the protos say.
//!
//! After a change of a `.proto` file run `UPDATE_GENERATED=1 cargo test -p uptime-proto --test
//! generated` once and commit what it wrote.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use prost::Message;

const FILES: [&str; 4] = ["types", "collector", "query", "admin"];

fn generate(into: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files: Vec<PathBuf> =
        FILES.iter().map(|name| root.join(format!("golem/uptime/v1/{name}.proto"))).collect();
    let descriptors = protox::compile(&files, [root]).unwrap();
    // Reflection serves the comments' positions to nobody: leave source info out.
    let mut bare = descriptors.clone();
    for file in &mut bare.file {
        file.source_code_info = None;
    }
    std::fs::write(into.join("descriptor.bin"), bare.encode_to_vec()).unwrap();
    let mut config = tonic_prost_build::Config::new();
    config.bytes(["."]);
    tonic_prost_build::configure()
        .build_transport(false)
        .client_mod_attribute(".", "#[cfg(feature = \"grpc\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"grpc\")]")
        .out_dir(into)
        .emit_rerun_if_changed(false)
        .compile_fds_with_config(descriptors, config)
        .unwrap();
}

#[test]
fn the_generated_code_is_fresh() {
    let scratch = tempfile::tempdir().unwrap();
    generate(scratch.path());
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gen");
    let mut names: Vec<_> = std::fs::read_dir(scratch.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["descriptor.bin", "golem.uptime.v1.rs"], "the generator's set of files");
    for name in names {
        let fresh = std::fs::read(scratch.path().join(&name)).unwrap();
        let target = committed.join(&name);
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(&target, &fresh).unwrap();
        }
        let kept = std::fs::read(&target).unwrap_or_default();
        assert!(
            kept == fresh,
            "{} is stale: run UPDATE_GENERATED=1 cargo test -p uptime-proto --test generated",
            target.display()
        );
    }
}
