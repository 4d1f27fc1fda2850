//! Look-ups by the command line, where the daemon has no bridge to its bus.
//!
//! The program is a script that does what a test has written down for it. It is written once
//! and linked to: a script that is still open for writing somewhere cannot be run.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;
use uptime_probe::yagna::{CommandOptions, Found, Limits, Yagna, YagnaConfigError};
use uptime_proto::Reason;
use uptime_testkit::fake_yagna::{DaemonOptions, Fault, FaultKind, ProviderSpec, Restart};

use super::*;

const FIND: &str = "POST /_gsb/local/net/FindNode";
const LIVING: &str = "0x85f06344fde97d390e87b0840b0325212f26eba7";

fn script() -> &'static Path {
    static SCRIPT: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = SCRIPT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script");
        fs::write(&path, "#!/bin/sh\n. \"$0.does\"\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        (folder, path)
    });
    path
}

/// A `yagna` that does what it is told.
struct Program {
    folder: TempDir,
}

impl Program {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        symlink(script(), folder.path().join("yagna")).unwrap();
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("yagna")
    }

    /// Lines of shell; `$0` is the program, its folder can be written to.
    fn does(&self, lines: &str) {
        fs::write(self.folder.path().join("yagna.does"), lines).unwrap();
    }

    /// Every run notes its arguments and process id first.
    fn plays(&self, recording: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/recordings");
        let file = fs::read(path.join(format!("{recording}.json"))).unwrap();
        let run: Value = serde_json::from_slice(&file).unwrap();
        for name in ["stdout", "stderr"] {
            let text = run[name].as_str().unwrap();
            fs::write(self.folder.path().join(format!("yagna.{name}")), text).unwrap();
        }
        self.does(&format!(
            "echo \"$@\" >> \"$0.runs\"\ncat \"$0.stdout\"\ncat \"$0.stderr\" >&2\nexit {}",
            run["exit_code"]
        ));
    }

    fn noted(&self, what: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("yagna.{what}"))).unwrap_or_default()
    }

    fn options(&self) -> CommandOptions {
        CommandOptions::new(self.path())
    }

    fn for_daemon(&self, daemon: &Daemon) -> Yagna {
        yagna(daemon).with_command(self.options()).unwrap()
    }
}

async fn bare_daemon(world: &World) -> Daemon {
    let options = DaemonOptions { has_bridge: false, ..DaemonOptions::default() };
    Daemon::start(world.clone(), options).await.unwrap()
}

/// What became of a look-up: the time of `seen`, or a word.
fn told(found: Result<Found, CouldNotLook>) -> String {
    match found {
        Ok(Found::Known { seen_unix_s, .. }) => seen_unix_s.to_string(),
        Ok(Found::NotKnown) => "not known".to_owned(),
        Err(fault) => fault.reason.to_string(),
    }
}

#[tokio::test]
async fn recorded_runs() {
    let daemon = bare_daemon(&world()).await;
    let program = Program::new();
    let yagna = program.for_daemon(&daemon);
    for (recording, expected) in [
        ("70_net_find_online_json", "1795469057"),
        ("72_net_find_self", "1795469066"),
        ("73_net_find_killed_json", "1795469022"),
        ("74_net_find_never_json", "not known"),
        ("76_net_find_malformed", "malformed_answer"),
        ("79_net_find_noarg", "net_error"),
        ("7i_net_find_daemon_down", "yagna_unreachable"),
        ("7j_net_find_daemon_down_tcp", "yagna_unreachable"),
        ("94a_net_find_relay_down_0s", "timed_out"),
        ("94d_net_find_relay_down_25s", "timed_out"),
        ("94f_net_find_relay_down_50s", "timed_out"),
        ("95b_relay_main_rejects_0176_find", "net_error"),
    ] {
        program.plays(recording);
        assert_eq!(told(yagna.find_node(id(LIVING)).await), expected, "{recording}");
    }
    let runs = program.noted("runs");
    assert!(runs.lines().all(|run| run == format!("net find {LIVING} --json")), "{runs}");
    assert_eq!(runs.lines().count(), 12);
    program.plays("7c_net_sessions_json");
    assert_eq!(yagna.relay_session_age().await.unwrap(), Some(Duration::from_secs(497)));
    program.plays("94g_net_sessions_relay_down");
    assert_eq!(yagna.relay_session_age().await.unwrap(), None);
    assert_eq!(program.noted("runs").lines().last(), Some("net sessions --json"));
}

#[tokio::test]
async fn the_bridge_comes_first_where_there_is_one() {
    let world = world();
    let node = world.add_provider(ProviderSpec::in_subnet("public"));
    let daemon = daemon(&world).await;
    let program = Program::new();
    program.plays("74_net_find_never_json");
    let yagna = program.for_daemon(&daemon);
    assert!(matches!(yagna.find_node(id(&node)).await.unwrap(), Found::Known { .. }));
    assert_eq!(yagna.find_node(id(LIVING)).await.unwrap(), Found::NotKnown);
    for (kind, expected) in faults::cases() {
        if expected != Some(Reason::TimedOut) {
            daemon.set_fault(Some(Fault::new(FIND, kind.clone())));
            let expected = expected.unwrap_or(Reason::NetError);
            let found = yagna_small(&daemon, &program).find_node(id(LIVING)).await;
            assert_eq!(reason(found), expected, "{kind:?}");
        }
    }
    // The words of the bus count, whatever the status over them.
    let words = r#"{"Err":{"RuntimeException":"Request failed with code 400"}}"#;
    daemon.set_fault(Some(Fault::new(FIND, FaultKind::Status(404, words.to_owned()))));
    assert_eq!(reason(yagna.find_node(id(LIVING)).await), Reason::NetError);
    assert_eq!(program.noted("runs"), "", "it was never run");
}

fn yagna_small(daemon: &Daemon, program: &Program) -> Yagna {
    yagna_with(daemon, faults::small()).with_command(program.options()).unwrap()
}

#[tokio::test]
async fn that_there_is_no_bridge_is_remembered_until_a_connection_fails() {
    let world = world();
    let node = world.add_provider(ProviderSpec::in_subnet("public"));
    let daemon = bare_daemon(&world).await;
    let program = Program::new();
    program.plays("74_net_find_never_json");
    let yagna = program.for_daemon(&daemon);
    for _ in 0..3 {
        assert_eq!(yagna.find_node(id(&node)).await.unwrap(), Found::NotKnown);
    }
    assert_eq!((daemon.count(FIND), program.noted("runs").lines().count()), (1, 3));
    daemon.stop_listening().await;
    assert_eq!(reason(yagna.identity().await), Reason::YagnaUnreachable);
    daemon.set_bridge(true);
    let restart = Restart { relearn_after: Duration::ZERO, blind_for: Duration::ZERO };
    daemon.restart(restart).await.unwrap();
    assert!(matches!(yagna.find_node(id(&node)).await.unwrap(), Found::Known { .. }));
    assert_eq!((daemon.count(FIND), program.noted("runs").lines().count()), (2, 3));
}

#[tokio::test]
async fn a_daemon_that_the_program_cannot_reach_may_be_another_afterwards() {
    let world = world();
    let node = world.add_provider(ProviderSpec::in_subnet("public"));
    let daemon = bare_daemon(&world).await;
    let program = Program::new();
    program.plays("7i_net_find_daemon_down");
    let yagna = program.for_daemon(&daemon);
    assert_eq!(reason(yagna.find_node(id(&node)).await), Reason::YagnaUnreachable);
    daemon.set_bridge(true);
    assert!(matches!(yagna.find_node(id(&node)).await.unwrap(), Found::Known { .. }));
}

#[tokio::test]
async fn without_a_program_the_error_names_the_setting() {
    let daemon = bare_daemon(&world()).await;
    let yagna = yagna(&daemon);
    for fault in [
        yagna.find_node(id(LIVING)).await.unwrap_err(),
        yagna.find_node(id(LIVING)).await.unwrap_err(),
        yagna.relay_session_age().await.unwrap_err(),
    ] {
        assert_eq!(fault.reason, Reason::NetError);
        assert!(fault.detail.contains("--yagna-command"), "{fault}");
    }
    assert_eq!(daemon.count(FIND), 1);
    let fault = yagna.round_trips(&[id(LIVING)]).await.unwrap_err();
    assert_eq!(fault.reason, Reason::NetError);
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_and_collected() {
    let daemon = bare_daemon(&world()).await;
    let program = Program::new();
    program.does("echo $$ > \"$0.pid\"\nexec sleep 600");
    let timeout = Duration::from_secs(1);
    let options = CommandOptions { timeout, ..program.options() };
    let yagna = yagna(&daemon).with_command(options).unwrap();
    let begun = Instant::now();
    assert_eq!(reason(yagna.find_node(id(LIVING)).await), Reason::TimedOut);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_gone(&program).await;
    // Cancelled by whoever asked: the same.
    program.does("echo $$ > \"$0.pid2\"\nexec sleep 600");
    let patient = program.for_daemon(&daemon);
    tokio::select! {
        found = patient.find_node(id(LIVING)) => panic!("{found:?}"),
        () = until("a run", || program.noted("pid2").ends_with('\n')) => {}
    }
    fs::write(program.folder.path().join("yagna.pid"), program.noted("pid2")).unwrap();
    assert_gone(&program).await;
}

/// Neither running nor dead and uncollected.
async fn assert_gone(program: &Program) {
    let process = Path::new("/proc").join(program.noted("pid").trim());
    assert_ne!(process, Path::new("/proc"));
    until("the program's end", || !process.exists()).await;
}

#[tokio::test]
async fn what_a_program_writes_is_bounded() {
    let daemon = bare_daemon(&world()).await;
    let program = Program::new();
    let yagna = program.for_daemon(&daemon);
    for lines in [
        "echo $$ > \"$0.pid\"\nexec yes",
        "echo $$ > \"$0.pid\"\nexec yes >&2",
        "echo $$ > \"$0.pid\"\nexec head -c 65537 /dev/zero",
    ] {
        program.does(lines);
        assert_eq!(reason(yagna.find_node(id(LIVING)).await), Reason::AnswerTooLarge, "{lines}");
        assert_gone(&program).await;
    }
    // The sessions of a daemon that knows everybody are many, and bounded all the same.
    let session = r#"{"type":"p2p","time":"1m"},"#;
    program.does(&format!("echo '['; yes '{session}' | head -n 10000; echo '{{\"type\":\"\"}}]'"));
    assert_eq!(yagna.relay_session_age().await.unwrap(), None);
    program.does("exec yes");
    assert_eq!(reason(yagna.relay_session_age().await), Reason::AnswerTooLarge);
    program.does("exec head -c 65536 /dev/zero");
    assert_eq!(reason(yagna.find_node(id(LIVING)).await), Reason::MalformedAnswer);
}

#[tokio::test]
async fn programs_that_say_nothing_useful() {
    let daemon = bare_daemon(&world()).await;
    let program = Program::new();
    let yagna = program.for_daemon(&daemon);
    for (lines, expected) in [
        ("exit 0", Reason::MalformedAnswer),
        ("echo '{\"seen\":\"soon\"}'", Reason::MalformedAnswer),
        ("printf '\\377\\376\\000'", Reason::MalformedAnswer),
        ("exit 1", Reason::NetError),
        ("echo 'Error: Request failed with code 404' >&2; kill -9 $$", Reason::NetError),
        ("echo 'Error: Request failed with code 404'; exit 1", Reason::NetError), // on stdout
        ("exit 127", Reason::NetError),
        ("cat; exit 7", Reason::NetError), // there is nothing to read
    ] {
        program.does(lines);
        assert_eq!(reason(yagna.find_node(id(LIVING)).await), expected, "{lines}");
    }
    let nowhere = CommandOptions::new(program.folder.path().join("nowhere"));
    let yagna = super::yagna(&daemon).with_command(nowhere).unwrap();
    let fault = yagna.find_node(id(LIVING)).await.unwrap_err();
    assert_eq!(fault.reason, Reason::NetError);
    assert!(fault.detail.contains("cannot run"), "{fault}");
}

#[tokio::test]
async fn a_program_gets_no_key_and_little_else() {
    let daemon = bare_daemon(&world()).await;
    let program = Program::new();
    program.does("env > \"$0.env\"; echo \"$@\" > \"$0.runs\"; exit 1");
    program.for_daemon(&daemon).find_node(id(LIVING)).await.unwrap_err();
    assert!(!program.noted("env").contains(KEY) && !program.noted("runs").contains(KEY));
    let seen = program.noted("env");
    // Set for every test run, and none of the program's business.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    assert!(!seen.contains("CARGO_"), "{seen}");
    assert!(seen.contains("PATH="), "{seen}");
    // Should it repeat a key that it found elsewhere, that is told to nobody.
    program.does(&format!("echo 'Error: bad key {KEY}' >&2; exit 1"));
    let fault = program.for_daemon(&daemon).find_node(id(LIVING)).await.unwrap_err();
    assert!(fault.detail.contains("bad key ***"), "{fault}");
}

#[tokio::test]
async fn so_many_programs_at_once_and_no_more() {
    let daemon = bare_daemon(&world()).await;
    let program = Program::new();
    program.does("sleep 0.2; echo 'Error: Request failed with code 404' >&2; exit 1");
    let options = CommandOptions { in_flight_max: 2, ..program.options() };
    let yagna = yagna(&daemon).with_command(options).unwrap();
    let begun = Instant::now();
    let finds = (0..6).map(|_| yagna.find_node(id(LIVING)));
    for found in futures_util::future::join_all(finds).await {
        assert_eq!(found.unwrap(), Found::NotKnown);
    }
    assert!(begun.elapsed() >= Duration::from_millis(600), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn useless_options_are_refused() {
    let daemon = daemon(&world()).await;
    let good = || CommandOptions::new("yagna");
    for options in [
        CommandOptions::new(""),
        CommandOptions { in_flight_max: 0, ..good() },
        CommandOptions { timeout: Duration::ZERO, ..good() },
        CommandOptions { output_bytes_max: 0, ..good() },
    ] {
        let refused = yagna_with(&daemon, Limits::default()).with_command(options);
        assert!(matches!(refused, Err(YagnaConfigError::Command(_))), "{refused:?}");
    }
}
