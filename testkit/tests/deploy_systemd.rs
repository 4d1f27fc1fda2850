//! The systemd units and the example configurations beside them stay valid: systemd reads the
//! units, and the parsers of the binaries read the command lines in them and the examples.
//!
//! Requires `systemd-analyze`: without it the tests fail.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use clap::{CommandFactory, Parser};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn unit(name: &str) -> String {
    fs::read_to_string(deploy().join("systemd").join(name)).unwrap()
}

fn verify(units: &Path) -> Output {
    let script = deploy().join("lib/verify_units.sh");
    Command::new("/bin/sh").arg(script).arg(units).output().unwrap()
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

#[test]
fn systemd_takes_the_units_without_a_warning() {
    let output = verify(&deploy().join("systemd"));
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("4 units have no faults"), "{}", said(&output));
}

#[test]
fn a_unit_that_is_wrong_is_found() {
    let breakages = [
        ("uptime-probe.service", "NoNewPrivileges=", "NoNewPriviledges=", "NoNewPriviledges"),
        ("uptime-probe-once.timer", "InactiveSec=100ms", "InactiveSec=100mz", "100mz"),
        ("uptime-aggregator.service", "@system-service", "@sytem-service", "@sytem-service"),
        ("uptime-aggregator.service", "/usr/bin/uptime-", "/nowhere/uptime-", "not executable"),
        ("uptime-probe-once.service", "Type=oneshot", "Type=onceshot", "onceshot"),
        ("uptime-aggregator.service", "CapabilityBoundingSet=\n", "", "Overall exposure"),
    ];
    for (name, there, wrong, word) in breakages {
        let directory = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(deploy().join("systemd")).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
        }
        let text = unit(name);
        assert!(text.contains(there), "{name} has no {there}: fix this test");
        fs::write(directory.path().join(name), text.replace(there, wrong)).unwrap();
        let output = verify(directory.path());
        assert!(!output.status.success(), "{wrong} passed: {}", said(&output));
        assert!(said(&output).contains(word), "{wrong}: {}", said(&output));
    }
}

#[test]
fn without_systemd_analyze_the_check_fails_and_says_who_installs_it() {
    let directory = tempfile::tempdir().unwrap();
    let dirname = ["/usr/bin/dirname", "/bin/dirname"].map(Path::new);
    let dirname = dirname.into_iter().find(|path| path.exists()).unwrap();
    std::os::unix::fs::symlink(dirname, directory.path().join("dirname")).unwrap();
    let output = Command::new("/bin/sh")
        .arg(deploy().join("lib/verify_units.sh"))
        .env("PATH", directory.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("deploy/test.sh"), "{}", said(&output));
}

/// The command lines of a unit, as the binary would get them; continued lines are joined.
fn command_lines(unit: &str) -> Vec<Vec<String>> {
    let joined = unit.replace("\\\n", " ");
    let lines = joined.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        key.starts_with("ExecStart").then(|| value.trim_start_matches('-').to_owned())
    });
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[test]
fn the_binaries_take_the_command_lines_of_the_units() {
    let probes = ["uptime-probe.service", "uptime-probe-once.service"];
    let mut seen = 0;
    for line in probes.into_iter().flat_map(|name| command_lines(&unit(name))) {
        assert_eq!(line[0], "/usr/bin/uptime-probe");
        uptime_probe::config::Cli::try_parse_from(&line).unwrap();
        seen += 1;
    }
    for line in command_lines(&unit("uptime-aggregator.service")) {
        assert_eq!(line[0], "/usr/bin/uptime-aggregator");
        uptime_aggregator::config::Cli::try_parse_from(&line).unwrap();
        seen += 1;
    }
    assert_eq!(seen, 4);
}

/// When the start limit is over, systemd stops the command that runs and starts nothing more, even
/// if that command may fail.
#[test]
fn what_runs_before_the_probe_cannot_outlast_its_start_limit() {
    let unit = unit("uptime-probe.service");
    let limit = unit.lines().find_map(|line| line.strip_prefix("TimeoutStartSec="));
    let limit = limit.and_then(|text| text.strip_suffix('s')).expect("seconds");
    let limit = Duration::from_secs(limit.parse().unwrap());
    let before = command_lines(&unit);
    assert_eq!((before[0][1].as_str(), before[1][1].as_str()), ("check", "run"));
    // Starting the program and closing what it opened are not in it.
    assert!(uptime_probe::check::CHECK_WITHIN + Duration::from_secs(20) <= limit, "{limit:?}");
}

/// The example with its defaults, which stand behind a `#` without a space, in force.
fn with_defaults(example: &str) -> String {
    let lines = example.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|first: char| first.is_ascii_lowercase()) => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The names of the settings in an example, in force or not.
fn names(example: &str) -> BTreeSet<String> {
    let lines = example.lines().filter_map(|line| {
        let (name, _) = line.trim_start_matches(['#', ' ']).split_once(" = ")?;
        Some(name.to_owned())
    });
    lines.collect()
}

/// The settings of a command, without those that the unit sets itself.
fn settings(command: &clap::Command, subcommand: &str, of_unit: &[&str]) -> BTreeSet<String> {
    let command = command.find_subcommand(subcommand).unwrap();
    let names = command.get_arguments().filter_map(|argument| argument.get_long());
    let names = names.filter(|name| !["help", "config", "once"].contains(name));
    names.filter(|name| !of_unit.contains(name)).map(|name| name.replace('-', "_")).collect()
}

fn aggregator(text: &str) -> Result<uptime_aggregator::config::Config, Vec<String>> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    let config = Some(file.path().to_owned());
    let data_dir = Some("/var/lib/golem-uptime".to_owned());
    uptime_aggregator::config::Config::read(&uptime_aggregator::config::SettingArgs {
        config,
        data_dir,
        ..Default::default()
    })
}

#[test]
fn the_example_of_the_aggregator_is_complete_and_tells_the_defaults() {
    let example = unit("aggregator.toml");
    let bare = aggregator("").unwrap();
    assert_eq!(format!("{:?}", aggregator(&example).unwrap()), format!("{bare:?}"));
    // Which rules were given is no setting.
    let mut given = aggregator(&with_defaults(&example)).unwrap();
    given.given_rules = bare.given_rules;
    assert_eq!(format!("{given:?}"), format!("{bare:?}"));
    assert!(aggregator(&example.replace("#grace_s", "grace_z")).is_err());

    let command = uptime_aggregator::config::Cli::command();
    let of_unit =
        ["data-dir", "insecure-plaintext-beyond-loopback", "anonymous-readers-beyond-loopback"];
    assert_eq!(names(&example), settings(&command, "serve", &of_unit));
}

/// Where the probe's secrets come from in this test.
struct Surroundings(String);

impl uptime_probe::config::Surroundings for Surroundings {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "YAGNA_APPKEY").then(|| "key".to_owned())
    }

    fn read(&self, _: &Path) -> std::io::Result<String> {
        Ok(self.0.clone())
    }
}

fn probe(text: &str) -> Result<uptime_probe::config::Config, Vec<String>> {
    let args = uptime_probe::config::SettingArgs {
        config: Some("probe.toml".into()),
        ..Default::default()
    };
    uptime_probe::config::Config::read(&args, &Surroundings(text.to_owned()))
}

#[test]
fn the_example_of_the_probe_is_complete_and_tells_the_defaults() {
    let example = unit("probe.toml");
    let bare = format!("{:?}", probe("").unwrap());
    assert_eq!(format!("{:?}", probe(&example).unwrap()), bare);
    assert_eq!(format!("{:?}", probe(&with_defaults(&example)).unwrap()), bare);
    assert!(probe(&example.replace("yagna_url", "yagna_uri")).is_err());

    let command = uptime_probe::config::Cli::command();
    let of_unit = ["token-file", "app-key-file", "spool-dir", "insecure-plaintext-beyond-loopback"];
    assert_eq!(names(&example), settings(&command, "run", &of_unit));
}
