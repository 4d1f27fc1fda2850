//! The command on a terminal: width, colours and the live view.

use std::io::{ErrorKind, Read};
use std::process::Stdio;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::process::{Child, Command};
use uptime_client::v1::watch_nodes_response::Event;
use uptime_client::v1::{self, Verdict};

use crate::answers::script;
use crate::contrary::{Contrary, Script, then_silence};
use crate::watching::word;
use crate::{DEADLINE, id};

/// A command that writes to a terminal of 60 columns and 20 lines, and the terminal's other end.
fn on_terminal(arguments: &[&str], variables: &[(&str, &str)]) -> (Child, std::fs::File) {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&near).unwrap();
    unlockpt(&near).unwrap();
    let size = Winsize { ws_row: 20, ws_col: 60, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&near, size).unwrap();
    let name = ptsname(&near, Vec::new()).unwrap().into_string().unwrap();
    let far = std::fs::OpenOptions::new().read(true).write(true).open(name).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_uptimectl"))
        .args(arguments)
        .env_clear()
        .env("TERM", "xterm")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(far)
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    (child, std::fs::File::from(near))
}

/// Reads until the text holds all of these, or its writer has gone.
async fn read_until(mut near: std::fs::File, words: &[&str]) -> (String, std::fs::File) {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let reading = tokio::task::spawn_blocking(move || {
        let (begun, mut text, mut bytes) = (Instant::now(), String::new(), [0; 4_096]);
        while begun.elapsed() < DEADLINE {
            match near.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => text += &String::from_utf8_lossy(&bytes[..count]),
                // So ends a terminal whose writer has gone.
                Err(error) if error.raw_os_error() == Some(5) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}"),
            }
            if !words.is_empty() && words.iter().all(|word| text.contains(word)) {
                break;
            }
        }
        (text, near)
    });
    tokio::time::timeout(DEADLINE, reading).await.expect("it is shown in time").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_fit_and_are_coloured_unless_that_is_not_wanted() {
    let there = Contrary::start(script()).await;
    let url = there.url();
    let shown = async |variables: &[(&str, &str)]| {
        let (mut child, near) = on_terminal(&["nodes", "--address", &url], variables);
        let (text, _near) = read_until(near, &[]).await;
        assert!(child.wait().await.unwrap().success());
        text
    };
    let coloured = shown(&[]).await;
    assert!(coloured.contains("\u{1b}[32myes\u{1b}[0m"), "{coloured:?}");
    let plain = shown(&[("NO_COLOR", "1")]).await;
    assert!(!plain.contains('\u{1b}') && plain.contains("yes"), "{plain:?}");
    assert!(!shown(&[("TERM", "dumb")]).await.contains('\u{1b}'));
    let widths = plain.lines().map(|line| line.trim_end().chars().count());
    assert!(widths.clone().max() <= Some(60), "{plain}");
    assert_eq!(plain.lines().count(), 4, "{plain}");
}

fn watched() -> Script {
    let node = |number: u32, verdict: Verdict| v1::Node {
        id: id(number).to_string(),
        verdict: verdict as i32,
        verdict_since_unix_s: 1_769_862_870,
        name: "\u{1b}[31mn".into(),
        ..v1::Node::default()
    };
    let changed = |nodes: Vec<v1::Node>| Event::Changed(v1::NodesChanged { nodes });
    Script {
        watch: Box::new(move |_, _| {
            let all = (1..=50).map(|number| node(number, Verdict::Up)).collect();
            Ok(then_silence(vec![
                word(changed(all), "a"),
                word(Event::Synced(v1::Synced {}), "b"),
                word(changed(vec![node(7, Verdict::Down)]), "c"),
            ]))
        }),
        ..Script::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_view_is_drawn_and_the_terminal_given_back() {
    const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
    const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";
    let there = Contrary::start(watched()).await;
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let (mut child, near) = on_terminal(&["watch", "--address", &there.url()], &[]);
        let words = ["50 nodes: 49 up, 1 down", "up -> down", "NOT UP", "\\u{1b}"];
        let (text, near) = read_until(near, &words).await;
        assert!(text.starts_with(ENTER), "{text:?}");
        assert!(!text.contains(LEAVE) && !text.contains("\u{1b}[31mn"), "{text:?}");
        let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        let (text, _near) = read_until(near, &[LEAVE]).await;
        assert!(text.ends_with(LEAVE), "{text:?}");
        assert_eq!(child.wait().await.unwrap().code(), Some(0), "{signal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_fails_gives_the_terminal_back_and_lines_are_for_the_asking() {
    let there = Contrary::start(Script::default()).await;
    let (mut child, near) = on_terminal(&["watch", "--address", &there.url()], &[]);
    let (text, _near) = read_until(near, &[]).await;
    assert!(text.ends_with("\u{1b}[?25h\u{1b}[?1049l"), "{text:?}");
    assert_eq!(child.wait().await.unwrap().code(), Some(1));
    let there = Contrary::start(watched()).await;
    let url = there.url();
    for more in [&["--lines"][..], &["--output", "json"]] {
        let arguments = [&["watch", "--count", "1", "--address", &url], more].concat();
        let (mut child, near) = on_terminal(&arguments, &[]);
        let (text, _near) = read_until(near, &[]).await;
        assert_eq!((text.lines().count(), text.contains("\u{1b}[?")), (1, false), "{text:?}");
        assert_eq!(child.wait().await.unwrap().code(), Some(0));
    }
}
