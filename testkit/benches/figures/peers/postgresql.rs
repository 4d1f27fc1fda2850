//! PostgreSQL: a row for each observation, copied in through psql.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;
use uptime_proto::Class;

use super::http::wait_for;
use super::samples::{Question, Stretch};
use super::{Answer, Peer, server_program};
use crate::process::Running;

/// How long the server may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a statement may take. Emptying the month takes long.
const ANSWER_WITHIN: Duration = Duration::from_secs(1_200);
/// Lines of an answer on their way from psql; when there are more, psql waits.
const LINES_MAX: usize = 1_024;
/// Ends every answer of psql.
const END: &str = "-- the end --";
/// The package's own account: the server refuses to run as root.
const ACCOUNT: &str = "postgres";
/// For rows by the hundred million: the settings of the package are for the smallest machines.
const SETTINGS: [&str; 4] =
    ["listen_addresses=", "shared_buffers=512MB", "work_mem=256MB", "maintenance_work_mem=256MB"];

const TABLES: &str = "
    CREATE TABLE node (number integer PRIMARY KEY, id text NOT NULL);
    CREATE TABLE observation (
        round_s integer NOT NULL,
        node integer NOT NULL,
        probe smallint NOT NULL,
        class smallint NOT NULL
    );";

/// psql at work on one connection.
struct Session {
    child: Child,
    input: ChildStdin,
    lines: Receiver<std::io::Result<String>>,
}

impl Session {
    fn open(directory: &Path) -> anyhow::Result<Self> {
        let log = std::fs::File::create(directory.join("psql.log"))?;
        let mut child = Command::new(server_program("psql")?)
            .args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"])
            .args(["--set", "ON_ERROR_STOP=1", "--username", ACCOUNT, "--dbname", "postgres"])
            .arg("--host")
            .arg(directory)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("starting psql")?;
        let input = child.stdin.take().context("psql takes no input")?;
        let output = child.stdout.take().context("psql has no output")?;
        let (sender, lines) = sync_channel(LINES_MAX);
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines();
            // Ends with psql, or with whoever listened.
            for line in lines {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, input, lines })
    }

    /// Sends this and waits for all that comes of it.
    fn run(&mut self, statements: &[&[u8]]) -> anyhow::Result<(Vec<String>, Duration)> {
        let started = Instant::now();
        for statement in statements {
            self.input.write_all(statement)?;
        }
        writeln!(self.input, "\n\\echo {END}")?;
        self.input.flush()?;
        let mut answer = Vec::new();
        loop {
            match self.lines.recv_timeout(ANSWER_WITHIN) {
                Ok(line) => {
                    let line = line?;
                    if line == END {
                        return Ok((answer, started.elapsed()));
                    }
                    answer.push(line);
                }
                Err(RecvTimeoutError::Timeout) => bail!("psql did not answer"),
                Err(RecvTimeoutError::Disconnected) => bail!("psql ended"),
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(super) struct PostgreSql {
    session: Option<Session>,
    server: Option<Running>,
    directory: TempDir,
    has_nodes: bool,
}

/// The number of the account that the server is to run as; `None`: our own will do.
fn account() -> anyhow::Result<Option<(u32, u32)>> {
    let number = |what: &[&str]| -> anyhow::Result<u32> {
        let output = Command::new("id").args(what).output()?;
        ensure!(output.status.success(), "there is no account {ACCOUNT}");
        Ok(String::from_utf8(output.stdout)?.trim_end().parse()?)
    };
    if number(&["-u"])? != 0 {
        return Ok(None);
    }
    Ok(Some((number(&["-u", ACCOUNT])?, number(&["-g", ACCOUNT])?)))
}

fn program(name: &str, account: Option<(u32, u32)>) -> anyhow::Result<Command> {
    let mut command = Command::new(server_program(name)?);
    command.env_clear().current_dir("/");
    if let Some((user, group)) = account {
        command.uid(user).gid(group);
    }
    Ok(command)
}

impl PostgreSql {
    pub(super) fn open() -> anyhow::Result<Self> {
        // On a disk, within reach of the package's account, and short enough for a socket's path.
        let directory = tempfile::tempdir_in("/var/tmp").context("/var/tmp")?;
        let account = account()?;
        if let Some((user, group)) = account {
            std::os::unix::fs::chown(directory.path(), Some(user), Some(group))?;
        }
        let data = directory.path().join("data");
        let mut initdb = program("initdb", account)?;
        initdb.args(["--auth=trust", "--encoding=UTF8", "--no-locale", "--username", ACCOUNT]);
        let output = initdb.arg("--pgdata").arg(&data).output().context("starting initdb")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "initdb: {}", said.trim_end());
        let mut postgres = program("postgres", account)?;
        // The socket is the only way in, and its directory is closed to others.
        postgres.arg("-D").arg(&data).arg("-k").arg(directory.path());
        for setting in SETTINGS {
            postgres.args(["-c", setting]);
        }
        let log = directory.path().join("postgres.log");
        let mut server = Running::spawn(&mut postgres, &log)?;
        let mut session = wait_for("postgres", &mut server, READY_WITHIN, || {
            let mut session = Session::open(directory.path())?;
            session.run(&[b"SELECT 1;"])?;
            Ok(Some(session))
        })?;
        session.run(&[TABLES.as_bytes()])?;
        Ok(Self { session: Some(session), server: Some(server), directory, has_nodes: false })
    }

    fn run(&mut self, statements: &[&[u8]]) -> anyhow::Result<(Vec<String>, Duration)> {
        let session = self.session.as_mut().context("it was ended")?;
        session.run(statements).with_context(|| {
            let log = self.directory.path().join("psql.log");
            std::fs::read_to_string(log).unwrap_or_default().trim_end().to_owned()
        })
    }

    fn number(&mut self, query: &str) -> anyhow::Result<u64> {
        let (lines, _) = self.run(&[query.as_bytes()])?;
        let line = lines.first().with_context(|| format!("no answer: {query}"))?;
        line.parse().with_context(|| format!("no number: {line}"))
    }

    fn copy(&mut self, table: &str, rows: &[u8]) -> anyhow::Result<Duration> {
        let copy = format!("COPY {table} FROM STDIN;\n");
        let (_, took) = self.run(&[copy.as_bytes(), rows, b"\\.\n"])?;
        Ok(took)
    }
}

/// The number that stands for a class in rows.
fn class_number(class: Class) -> usize {
    class.index()
}

impl Peer for PostgreSql {
    fn take_in(&mut self, stretch: &Stretch) -> anyhow::Result<Duration> {
        if !self.has_nodes {
            let mut rows = Vec::new();
            for (number, id) in stretch.ids().iter().enumerate() {
                writeln!(rows, "{number}\t{id}")?;
            }
            self.copy("node", &rows)?;
            self.has_nodes = true;
        }
        let mut rows = Vec::new();
        for sample in stretch.samples() {
            let class = class_number(sample.class);
            writeln!(rows, "{}\t{}\t{}\t{class}", sample.round_s, sample.node, sample.probe)?;
        }
        self.copy("observation", &rows)
    }

    fn settle(&mut self, observations: u64, compact: bool) -> anyhow::Result<()> {
        // Rows lie in the order of time, so this index finds a day and takes next to no room.
        self.run(&[b"CREATE INDEX ON observation USING brin (round_s);"])?;
        let vacuum = if compact { "VACUUM (FREEZE, ANALYZE);" } else { "ANALYZE;" };
        self.run(&[vacuum.as_bytes(), b"CHECKPOINT;"])?;
        let stored = self.number("SELECT count(*) FROM observation;")?;
        ensure!(stored == observations, "{stored} rows were stored, not {observations}");
        Ok(())
    }

    fn stored_bytes(&mut self) -> anyhow::Result<u64> {
        let of = |table: &str| format!("pg_total_relation_size('{table}')");
        self.number(&format!("SELECT {} + {};", of("observation"), of("node")))
    }

    fn uptimes(&mut self, question: &Question) -> anyhow::Result<Answer> {
        let Question { from_s, to_s, id_starts } = question;
        let (offer, seen) = (class_number(Class::Offer), class_number(Class::Seen));
        let of_nodes = if id_starts.is_empty() {
            String::new()
        } else {
            format!("AND node IN (SELECT number FROM node WHERE id LIKE '{id_starts}%')")
        };
        let query = format!(
            "SELECT node.id, rounds.share FROM node JOIN (
                SELECT node, avg(up::integer) AS share FROM (
                    SELECT node, bool_or(class = {seen}) AS up FROM observation
                    WHERE class <> {offer} AND round_s >= {from_s} AND round_s < {to_s}
                        {of_nodes}
                    GROUP BY node, round_s
                ) AS round GROUP BY node
            ) AS rounds ON rounds.node = node.number;"
        );
        let (lines, took) = self.run(&[query.as_bytes()])?;
        let one = |line: &String| {
            let (id, share) = line.split_once('|')?;
            Some((id.to_owned(), share.parse().ok()?))
        };
        let by_node: Option<BTreeMap<String, f64>> = lines.iter().map(one).collect();
        Ok((by_node.context("psql did not answer as expected")?, took))
    }

    fn round_trip(&mut self) -> anyhow::Result<Duration> {
        Ok(self.run(&[b"SELECT 1;"])?.1)
    }
}

impl Drop for PostgreSql {
    fn drop(&mut self) {
        // Killed, the server would leave its shared memory and, for a moment, its children.
        drop(self.session.take());
        if let Some(server) = self.server.take() {
            server.terminate().ok();
        }
    }
}
