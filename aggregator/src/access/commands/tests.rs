//! The commands on a store of their own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::MetadataExt;

use super::*;

const NOW_MS: i64 = 1_800_000_000_000;

struct Desk(tempfile::TempDir);

impl Desk {
    /// With a store, as serve has made it.
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        SqliteStore::open(directory.path()).await.unwrap().close().await.unwrap();
        Self(directory)
    }

    fn place(&self, now_ms: i64) -> Place<'_> {
        Place { data_dir: self.0.path(), now_ms, tell: |_| Ok(()) }
    }

    async fn probe(&self, command: ProbeCommand) -> Result<Said, String> {
        probe(self.place(NOW_MS), &command).await.map_err(|error| error.to_string())
    }

    async fn access(&self, command: AccessCommand) -> Result<Said, String> {
        access(self.place(NOW_MS), &command).await.map_err(|error| error.to_string())
    }

    fn certificate(&self, certificate: bool) -> CertificateArgs {
        CertificateArgs { certificate, out: self.0.path().to_owned(), days: 30 }
    }

    async fn identities(&self) -> Identities {
        self.place(NOW_MS).store().await.unwrap().identities().await.unwrap()
    }

    fn add(&self, name: &str) -> ProbeCommand {
        ProbeCommand::Add {
            name: name.to_owned(),
            subnets_allowed: Vec::new(),
            ticket: false,
            address: "https://aggregator.example:7640".to_owned(),
            certificate: self.certificate(false),
        }
    }
}

#[tokio::test]
async fn what_nobody_was_told_is_not_stored() {
    let desk = Desk::new().await;
    let full = |_: &Said| Err(io::Error::from(io::ErrorKind::StorageFull));
    let place = Place { tell: full, ..desk.place(NOW_MS) };
    let ticket = ProbeCommand::Add {
        name: text("alpha"),
        subnets_allowed: Vec::new(),
        ticket: true,
        address: text("https://aggregator.example:7640"),
        certificate: desk.certificate(false),
    };
    for command in [desk.add("alpha"), ticket] {
        let fault = probe(place, &command).await.unwrap_err().to_string();
        assert!(fault.contains("nothing was changed"), "{fault}");
    }
    assert!(desk.identities().await.probes.is_empty());
    let said = desk.probe(desk.add("alpha")).await.unwrap();
    assert!(said.told && !said.answer.is_empty(), "the name is free");
    let before = desk.identities().await;
    let certificate = desk.certificate(false);
    let (name, overlap_s, keep_others) = (text("alpha"), 0, false);
    let rotate = ProbeCommand::Rotate { name, overlap_s, keep_others, certificate };
    probe(place, &rotate).await.unwrap_err();
    assert_eq!(desk.identities().await, before, "the old token is as good as before");
}

#[tokio::test]
async fn where_no_store_is_none_is_made() {
    let desk = Desk(tempfile::tempdir().unwrap());
    let (elsewhere, here) = (desk.0.path().join("elsewhere"), desk.0.path());
    for data_dir in [here, &elsewhere] {
        let place = Place { data_dir, now_ms: NOW_MS, tell: |_| Ok(()) };
        let list = probe(place, &ProbeCommand::List).await.unwrap_err().to_string();
        let add = probe(place, &desk.add("alpha")).await.unwrap_err().to_string();
        let readers = access(place, &AccessCommand::List).await.unwrap_err().to_string();
        let looked = data_dir.join("uptime.sqlite3").display().to_string();
        for fault in [list, add, readers] {
            assert!(fault.contains(&looked), "{fault}");
            assert!(fault.contains("--data-dir") && fault.contains("serve"), "{fault}");
        }
    }
    assert_eq!(fs::read_dir(here).unwrap().count(), 0, "nothing is made");
    assert!(!elsewhere.exists());
}

#[tokio::test]
async fn what_is_no_store_is_not_made_one() {
    let desk = Desk(tempfile::tempdir().unwrap());
    let path = desk.0.path().join("uptime.sqlite3");
    for content in [&b""[..], b"a letter to somebody"] {
        fs::write(&path, content).unwrap();
        let fault = desk.probe(ProbeCommand::List).await.unwrap_err();
        for wanted in ["uptime.sqlite3-wal", "restore"] {
            assert!(fault.contains(wanted), "{fault}");
        }
        // Nor does serve put a new store there.
        let fault = SqliteStore::open(desk.0.path()).await.err().unwrap().to_string();
        assert!(fault.contains("restore a backup"), "{fault}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

fn text(name: &str) -> String {
    name.to_owned()
}

#[tokio::test]
async fn a_token_is_the_whole_answer_and_is_stored_hashed() {
    let desk = Desk::new().await;
    let said = desk.probe(desk.add("alpha")).await.unwrap();
    let token = said.answer.trim();
    assert_eq!(said.answer, format!("{token}\n"));
    assert!(!said.note.contains(token), "standard error may be a log");
    assert!(desk.identities().await.credentials.contains_key(&hash_token(token)));
    let again = desk.probe(desk.add("alpha")).await.unwrap_err();
    assert!(again.contains("already"), "{again}");
    let bad = desk.probe(desk.add("a b")).await.unwrap_err();
    assert!(bad.contains("letters"), "{bad}");
    let listed = desk.probe(ProbeCommand::List).await.unwrap().answer;
    assert_eq!(listed, "alpha\tenrolled\t2027-01-15T08:00:00.000000+00:00\tany subnet\ttoken\n");
}

#[tokio::test]
async fn rotating_and_revoking_are_said_and_stay_within_their_kind() {
    let desk = Desk::new().await;
    desk.probe(desk.add("alpha")).await.unwrap();
    let reader =
        AccessCommand::AddReader { name: text("eye"), certificate: desk.certificate(false) };
    desk.access(reader).await.unwrap();
    let rotate = |name: &str| ProbeCommand::Rotate {
        name: text(name),
        overlap_s: 60,
        keep_others: false,
        certificate: desk.certificate(false),
    };
    let said = desk.probe(rotate("alpha")).await.unwrap();
    assert!(said.note.contains("2027-01-15T08:01:00"), "{}", said.note);
    let credentials = desk.identities().await.credentials;
    assert_eq!(credentials[&hash_token(said.answer.trim())].valid_until_ms, None);
    for stranger in [
        desk.probe(rotate("eye")).await,
        desk.probe(ProbeCommand::Revoke { name: text("eye") }).await,
        desk.access(AccessCommand::Revoke { name: text("alpha") }).await,
        desk.access(AccessCommand::Revoke { name: text("nobody") }).await,
    ] {
        assert!(stranger.unwrap_err().contains("is named"));
    }
    desk.probe(ProbeCommand::Revoke { name: text("alpha") }).await.unwrap();
    assert!(desk.probe(rotate("alpha")).await.unwrap_err().contains("revoked"));
    desk.access(AccessCommand::Revoke { name: text("eye") }).await.unwrap();
    let listed = desk.access(AccessCommand::List).await.unwrap().answer;
    assert!(listed.starts_with("eye\treader\trevoked\t"), "{listed}");
    let audit_log = desk.access(AccessCommand::Audit { count: 2 }).await.unwrap().answer;
    let lines: Vec<&str> = audit_log.lines().collect();
    assert!(lines.len() == 2 && lines[0].contains("\tthis host\trevoke\teye\t1\t"), "{audit_log}");
}

#[tokio::test]
async fn a_ticket_comes_as_a_text_to_paste_with_the_authority_in_it() {
    let desk = Desk::new().await;
    let ticket = |name: &str| {
        let mut add = desk.add(name);
        if let ProbeCommand::Add { ticket, .. } = &mut add {
            *ticket = true;
        }
        add
    };
    let plain = desk.probe(ticket("alpha")).await.unwrap().answer;
    assert!(!plain.contains("CERTIFICATE") && !plain.contains("--ca-file"), "{plain}");
    authority(desk.place(NOW_MS), &AuthorityCommand::Init).unwrap();
    let said = desk.probe(ticket("beta")).await.unwrap();
    assert!(!said.note.contains("--address"), "{}", said.note);
    let mut add = ticket("gamma");
    if let ProbeCommand::Add { address, .. } = &mut add {
        *address = "http://aggregator.example:7640".to_owned();
    }
    // Certificates are of no use there, and the probe says so.
    let in_plaintext = desk.probe(add).await.unwrap();
    assert!(!in_plaintext.answer.contains("--ca-file"), "{}", in_plaintext.answer);
    assert!(in_plaintext.note.contains("plaintext to another host"), "{}", in_plaintext.note);
    let lines: Vec<&str> = said.answer.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("uptime-probe join")).unwrap();
    let wanted = "uptime-probe join --aggregator https://aggregator.example:7640 --ca-file \
                  golem-uptime-ca.pem --token-file beta.token <<'END'";
    assert_eq!(lines[at], wanted);
    let hash = hash_token(lines[at + 1]);
    let credential = desk.identities().await.credentials[&hash].clone();
    assert_eq!(credential.kind, CredentialKind::Ticket);
    assert_eq!(credential.valid_until_ms, Some(NOW_MS + 86_400_000));
    assert!(said.answer.contains("-----BEGIN CERTIFICATE-----") && lines[1] == "umask 077");
}

#[tokio::test]
async fn certificates_are_files_for_their_owner_and_none_stays_behind_in_vain() {
    let desk = Desk::new().await;
    let add = |name: &str| {
        let mut add = desk.add(name);
        if let ProbeCommand::Add { certificate, .. } = &mut add {
            certificate.certificate = true;
        }
        add
    };
    let missing = desk.probe(add("alpha")).await.unwrap_err();
    assert!(missing.contains("authority init"), "{missing}");
    authority(desk.place(NOW_MS), &AuthorityCommand::Init).unwrap();
    let said = desk.probe(add("alpha")).await.unwrap();
    assert!(said.answer.is_empty() && said.note.contains("alpha.key"), "{}", said.note);
    let mode = |name: &str| fs::metadata(desk.0.path().join(name)).unwrap().mode() & 0o777;
    assert_eq!((mode("alpha.pem"), mode("alpha.key")), (0o600, 0o600));
    let listed = desk.probe(ProbeCommand::List).await.unwrap().answer;
    assert!(listed.contains("certificate until 2027-02-14T08:00:00"), "{listed}");
    // The name is taken; what is there is not written over, and nothing new stays.
    fs::remove_file(desk.0.path().join("alpha.pem")).unwrap();
    fs::remove_file(desk.0.path().join("alpha.key")).unwrap();
    assert!(desk.probe(add("alpha")).await.unwrap_err().contains("already"));
    assert!(!desk.0.path().join("alpha.key").exists());
    let server = AuthorityCommand::IssueServer { names: vec![text("localhost")], days: 30 };
    let said = authority(desk.place(NOW_MS), &server).unwrap();
    assert!(said.note.contains("--tls-cert-file"), "{}", said.note);
    authority(desk.place(NOW_MS), &server).unwrap();
    assert_eq!((mode("authority/server.pem"), mode("authority/server.key")), (0o644, 0o600));
    let shown = authority(desk.place(NOW_MS), &AuthorityCommand::Show).unwrap().answer;
    assert!(shown.starts_with("-----BEGIN CERTIFICATE-----"), "{shown}");
}

#[tokio::test]
async fn a_rotation_ends_everything_there_was_unless_other_kinds_are_to_stay() {
    let desk = Desk::new().await;
    authority(desk.place(NOW_MS), &AuthorityCommand::Init).unwrap();
    let token = desk.probe(desk.add("alpha")).await.unwrap().answer;
    let out = desk.0.path().join("keys");
    let rotate = |certificate, keep_others| {
        fs::remove_dir_all(&out).ok();
        fs::create_dir(&out).unwrap();
        let certificate = CertificateArgs { certificate, out: out.clone(), days: 30 };
        let (name, overlap_s) = (text("alpha"), 0);
        ProbeCommand::Rotate { name, overlap_s, keep_others, certificate }
    };
    let live = async || {
        let all = desk.identities().await.credentials.into_values();
        let live = all.filter(|credential| !credential.is_over(NOW_MS));
        let mut kinds: Vec<&str> = live.map(|credential| credential.kind.as_str()).collect();
        kinds.sort_unstable();
        kinds
    };
    // Whichever was stolen, and whichever is given anew.
    let said = desk.probe(rotate(true, false)).await.unwrap();
    assert!(said.note.contains("Its older tokens and certificates end at 2027-01-15T08:00:00"));
    assert_eq!(live().await, ["certificate"]);
    let credentials = desk.identities().await.credentials;
    assert_eq!(credentials[&hash_token(token.trim())].valid_until_ms, Some(NOW_MS));
    desk.probe(rotate(false, false)).await.unwrap();
    assert_eq!(live().await, ["token"]);
    let said = desk.probe(rotate(true, true)).await.unwrap();
    assert!(said.note.contains("Its tokens stay good"), "{}", said.note);
    let said = desk.probe(rotate(false, true)).await.unwrap();
    assert!(said.note.contains("Its certificates stay good"), "{}", said.note);
    assert_eq!(live().await, ["certificate", "token"]);
    desk.probe(rotate(true, false)).await.unwrap();
    assert_eq!(live().await, ["certificate"]);
    let audit_log = desk.access(AccessCommand::Audit { count: 5 }).await.unwrap().answer;
    let details: Vec<&str> =
        audit_log.lines().map(|line| line.rsplit('\t').next().unwrap()).collect();
    let id = |hash: &str| credential_id(&hash_token(hash));
    let first = format!("within 0 s end: token {}", id(token.trim()));
    assert!(
        details[4].starts_with("new certificate ") && details[4].ends_with(&first),
        "{audit_log}"
    );
    assert!(details[3].contains("within 0 s end: certificate "), "{audit_log}");
    assert!(details[2].ends_with("; no older one ends; other kinds stay"), "{audit_log}");
    assert!(details[1].ends_with("; other kinds stay"), "{audit_log}");
    let ended = details[0].split_once("end: ").unwrap().1;
    // In the order of their hashes.
    assert!(ended.contains("certificate ") && ended.contains("token "), "{audit_log}");
}

#[tokio::test]
async fn credentials_are_listed_and_ended_one_by_one() {
    let desk = Desk::new().await;
    let token = desk.probe(desk.add("alpha")).await.unwrap().answer;
    let older = credential_id(&hash_token(token.trim()));
    let rotate = ProbeCommand::Rotate {
        name: text("alpha"),
        overlap_s: 60,
        keep_others: false,
        certificate: desk.certificate(false),
    };
    let token = desk.probe(rotate).await.unwrap().answer;
    let newer = credential_id(&hash_token(token.trim()));
    let list = async |name: &str, now_ms| {
        let list = AccessCommand::Credentials { name: text(name) };
        access(desk.place(now_ms), &list).await.map_err(|error| error.to_string())
    };
    let sorted = |answer: &str| {
        let mut lines: Vec<String> = answer.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let line = |id: &str, state: &str| {
        format!("{id}\ttoken\t2027-01-15T08:00:00.000000+00:00\t-\t{state}")
    };
    let stamp = "2027-01-15T08:01:00.000000+00:00";
    let mut wanted = [line(&older, &format!("ends {stamp}")), line(&newer, "in force")];
    wanted.sort();
    assert_eq!(sorted(&list("alpha", NOW_MS).await.unwrap().answer), wanted);
    let mut wanted = [line(&older, &format!("ended {stamp}")), line(&newer, "in force")];
    wanted.sort();
    assert_eq!(sorted(&list("alpha", NOW_MS + 60_000).await.unwrap().answer), wanted);
    assert!(list("nobody", NOW_MS).await.unwrap_err().contains("nobody is named"));

    let end = async |id: &str| desk.access(AccessCommand::End { id: text(id) }).await;
    for bad in ["", "abc", "x123", &"a".repeat(13)] {
        assert!(end(bad).await.unwrap_err().contains("hexadecimal"), "{bad}");
    }
    let said = end(&newer.to_uppercase()[..8]).await.unwrap();
    assert!(said.note.starts_with(&format!("The token {newer} of alpha has ended")));
    assert!(said.note.contains("What is left to alpha: token until"), "{}", said.note);
    assert!(end(&newer).await.unwrap_err().contains("has ended already"));
    end(&older).await.unwrap();
    let absent = if newer.starts_with("0000") { "ffff" } else { "0000" };
    assert!(end(absent).await.unwrap_err().contains("no credential's id begins with"));
    let all = desk.identities().await.credentials.into_values();
    assert!(all.into_iter().all(|credential| credential.is_over(NOW_MS)));
    let audit_log = desk.access(AccessCommand::Audit { count: 2 }).await.unwrap().answer;
    assert!(
        audit_log.contains(&format!("\tthis host\tend\talpha\t1\ttoken {newer}\n")),
        "{audit_log}"
    );
    desk.probe(ProbeCommand::Revoke { name: text("alpha") }).await.unwrap();
    assert!(list("alpha", NOW_MS).await.unwrap().note.contains("revoked"));
}

#[tokio::test]
async fn retractions_are_made_listed_and_undone() {
    let desk = Desk::new().await;
    desk.probe(desk.add("alpha")).await.unwrap();
    let retract = |name: &str, from: &str, to: &str, reason: &str| ProbeCommand::Retract {
        name: text(name),
        from: text(from),
        to: text(to),
        reason: text(reason),
    };
    let good = retract("alpha", "2026-01-31T12:00:00+01:00", "1769900000", "wrong clock");
    assert_eq!(desk.probe(good).await.unwrap().answer, "1\n");
    for bad in [
        retract("nobody", "0", "30", "x"),
        retract("alpha", "30", "30", "x"),
        retract("alpha", "-1", "30", "x"),
        retract("alpha", "yesterday", "30", "x"),
        retract("alpha", "0", "30", " "),
        retract("alpha", "0", "30", "a\nb"),
        retract("alpha", "0", "30", &"x".repeat(501)),
    ] {
        let said = format!("{bad:?}");
        assert!(desk.probe(bad).await.is_err(), "{said}");
    }
    let listed = desk.probe(ProbeCommand::Retractions).await.unwrap().answer;
    assert!(listed.starts_with("1\talpha\t2026-01-31T11:00:00.000000+00:00\t"), "{listed}");
    assert!(listed.ends_with("\tin-force\twrong clock\n"), "{listed}");
    desk.probe(ProbeCommand::UndoRetraction { number: 1 }).await.unwrap();
    let again = desk.probe(ProbeCommand::UndoRetraction { number: 1 }).await.unwrap_err();
    assert!(again.contains("in force"), "{again}");
    assert!(desk.probe(ProbeCommand::Retractions).await.unwrap().answer.contains("\tundone\t"));
}
