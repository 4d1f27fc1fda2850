//! The operator's commands on the aggregator's own host, beside a running serve or without one.
//!
//! Owns what they check, do and say. Answers are texts: the answer proper, for standard output,
//! and a note for the person, for standard error.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use uptime_proto::address::{Plaintext, Scheme, scheme};

use super::authority::{Authority, AuthorityError, Issued, Subject, write_over, write_secret};
use super::tokens::{check_name, check_subnet, hash_token, new_token};
use crate::config::{AccessCommand, AuthorityCommand, CertificateArgs, ProbeCommand};
use crate::publish::utc_stamp;
use crate::store::{
    By, Changed, CredentialKind, Ends, Identities, IdentityStore, NewCredential, NewIdentity,
    ON_THIS_HOST, Registry, Retraction, Role, SqliteStore, StoreError, credential_id,
};

/// A ticket that was not used by then is good for nothing.
const TICKET_VALID_MS: i64 = 86_400_000;
/// Fewer digits of an id would hit by accident; more it has not.
const CREDENTIAL_DIGITS_MIN: usize = 4;
/// See [`CREDENTIAL_DIGITS_MIN`].
const CREDENTIAL_DIGITS_MAX: usize = 12;
/// A reason for a retraction.
const REASON_BYTES_MAX: usize = 500;

/// Why a command did nothing.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It cannot be meant like this.
    #[error("{0}")]
    Usage(String),
    /// It cannot be done as things are.
    #[error("{0}")]
    Refused(String),
    /// The store would not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The authority would not.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// What a command says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// For standard output.
    pub answer: String,
    /// For standard error.
    pub note: String,
    /// It was told already, before what it tells of was stored.
    pub told: bool,
}

/// Where a command works, and when.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The aggregator's data directory.
    pub data_dir: &'a Path,
    /// Unix milliseconds.
    pub now_ms: i64,
    /// Tells what is told once: a secret that nobody got is not stored, nor a name spent for it.
    pub tell: fn(&Said) -> io::Result<()>,
}

impl Place<'_> {
    /// Whoever works on this host, now: for the audit log.
    pub(crate) fn by(&self) -> By {
        By { actor: ON_THIS_HOST.to_owned(), now_ms: self.now_ms }
    }

    /// The store, which stores what comes next only once this was told.
    async fn store_telling(&self, said: &Said) -> Result<SqliteStore, CommandError> {
        let (mut store, tell, said) = (self.store().await?, self.tell, said.clone());
        store.tell_before_commit(move || tell(&said));
        Ok(store)
    }

    /// The store that is there, as it is.
    pub(crate) async fn store(&self) -> Result<SqliteStore, CommandError> {
        Ok(SqliteStore::open_existing(self.data_dir).await?)
    }
}

fn usage(fault: String) -> CommandError {
    CommandError::Usage(fault)
}

fn refused(why: String) -> CommandError {
    CommandError::Refused(why)
}

/// Checks why a retraction is made.
///
/// # Errors
/// What is wrong with it.
pub fn check_reason(reason: &str) -> Result<(), String> {
    if reason.trim().is_empty()
        || reason.len() > REASON_BYTES_MAX
        || reason.chars().any(char::is_control)
    {
        return Err(format!(
            "the reason: 1 to {REASON_BYTES_MAX} bytes without line breaks are wanted"
        ));
    }
    Ok(())
}

/// What is done with probes.
///
/// # Errors
/// Why nothing was done.
pub async fn probe(place: Place<'_>, command: &ProbeCommand) -> Result<Said, CommandError> {
    match command {
        ProbeCommand::Add { name, subnets_allowed, ticket, address, certificate } => {
            for tag in subnets_allowed {
                check_subnet(tag).map_err(usage)?;
            }
            let enrolment = Enrolment { name, role: Role::Probe, subnets_allowed };
            if *ticket {
                return enrolment.by_ticket(place, address).await;
            }
            enrolment.add(place, certificate).await
        }
        ProbeCommand::List => list_probes(place).await,
        ProbeCommand::Rotate { name, overlap_s, keep_others, certificate } => {
            known(&mut place.store().await?, name, true).await?;
            rotate(place, name, (*overlap_s, *keep_others), certificate).await
        }
        ProbeCommand::Revoke { name } => revoke(place, name, true).await,
        ProbeCommand::Retract { name, from, to, reason } => {
            retract(place, name, from, to, reason).await
        }
        ProbeCommand::UndoRetraction { number } => {
            if !place.store().await?.undo_retraction(*number, &place.by()).await? {
                return Err(refused(format!(
                    "no retraction {number} is in force; see: probe retractions"
                )));
            }
            Ok(Said { note: format!("Retraction {number} is undone.\n"), ..Said::default() })
        }
        ProbeCommand::Retractions => retractions(place).await,
    }
}

/// What is done with readers and admins.
///
/// # Errors
/// Why nothing was done.
pub async fn access(place: Place<'_>, command: &AccessCommand) -> Result<Said, CommandError> {
    let enrolment = |name, role| Enrolment { name, role, subnets_allowed: &[] };
    match command {
        AccessCommand::AddReader { name, certificate } => {
            enrolment(name, Role::Reader).add(place, certificate).await
        }
        AccessCommand::AddAdmin { name, certificate } => {
            enrolment(name, Role::Admin).add(place, certificate).await
        }
        AccessCommand::List => list_callers(place).await,
        AccessCommand::Rotate { name, overlap_s, keep_others, certificate } => {
            known(&mut place.store().await?, name, false).await?;
            rotate(place, name, (*overlap_s, *keep_others), certificate).await
        }
        AccessCommand::Revoke { name } => revoke(place, name, false).await,
        AccessCommand::Credentials { name } => credentials(place, name).await,
        AccessCommand::End { id } => end(place, id).await,
        AccessCommand::Audit { count } => audit(place, *count).await,
    }
}

/// What is done with the authority.
///
/// # Errors
/// Why nothing was done.
pub fn authority(place: Place<'_>, command: &AuthorityCommand) -> Result<Said, CommandError> {
    match command {
        AuthorityCommand::Init => {
            fs::create_dir_all(place.data_dir).map_err(|source| AuthorityError::File {
                path: place.data_dir.to_owned(),
                source,
            })?;
            let authority = Authority::create(place.data_dir, place.now_ms)?;
            let note = format!(
                "The authority is made; clients are to trust the certificate above, which is also \
                 in {}.\nIts key stays in that directory and is worth as much as all tokens \
                 together.\nNext: uptime-aggregator authority issue-server NAME…\n",
                authority.ca_file.display()
            );
            Ok(Said { answer: authority.ca_pem, note, ..Said::default() })
        }
        AuthorityCommand::IssueServer { names, days } => {
            let authority = Authority::open(place.data_dir)?;
            let issued = authority.issue(&Subject::Server(names.clone()), *days, place.now_ms)?;
            let file = |name: &str| authority.ca_file.with_file_name(name);
            let (cert, key) = (file("server.pem"), file("server.key"));
            write_over(&key, &issued.key_pem, 0o600)?;
            write_over(&cert, &issued.cert_pem, 0o644)?;
            let until = utc_stamp(issued.not_after_ms);
            let note = format!(
                "Valid until {until}. A running serve takes it within seconds; to start one:\n  \
                 uptime-aggregator serve --tls-cert-file {} --tls-key-file {} \
                 --client-ca-file {}\n",
                cert.display(),
                key.display(),
                authority.ca_file.display()
            );
            Ok(Said { note, ..Said::default() })
        }
        AuthorityCommand::Show => {
            let answer = Authority::open(place.data_dir)?.ca_pem;
            Ok(Said { answer, ..Said::default() })
        }
    }
}

struct Enrolment<'a> {
    name: &'a str,
    role: Role,
    subnets_allowed: &'a [String],
}

impl Enrolment<'_> {
    async fn enrol(
        &self,
        place: Place<'_>,
        credential: NewCredential,
        said: Option<&Said>,
    ) -> Result<(), CommandError> {
        check_name(self.name).map_err(usage)?;
        let identity = NewIdentity {
            name: self.name.to_owned(),
            role: self.role,
            subnets_allowed: self.subnets_allowed.to_vec(),
            credential: Some(credential),
        };
        let mut store = match said {
            Some(said) => place.store_telling(said).await?,
            None => place.store().await?,
        };
        if !store.enrol(&identity, &place.by()).await? {
            let name = self.name;
            return Err(refused(format!(
                "{name} is enrolled already, or was: a name is never given out twice; see: probe \
                 list, access list"
            )));
        }
        Ok(())
    }

    async fn add(
        &self,
        place: Place<'_>,
        certificate: &CertificateArgs,
    ) -> Result<Said, CommandError> {
        let name = self.name;
        check_name(name).map_err(usage)?;
        if certificate.certificate {
            let (issued, files) = issue(place, name, certificate).await?;
            let enrolled = self.enrol(place, of_certificate(&issued), None).await;
            return files.said_if(enrolled, &issued);
        }
        let token = new_token();
        let note = match self.role {
            Role::Probe => format!(
                "Probe {name} is enrolled. Its token follows, once; only a hash of it is kept.\n\
                 On the probe's host put it in a file only the probe can read and start:\n  \
                 uptime-probe run --aggregator https://ADDRESS:7640 --token-file FILE\n\
                 (with --ca-file FILE where the aggregator's certificate is of the built-in \
                 authority; http:// only on this host or through a tunnel)\n"
            ),
            Role::Reader | Role::Admin => format!(
                "{name} is enrolled as {}. The token follows, once; only a hash of it is kept.\n\
                 It goes into the header 'authorization: Bearer TOKEN', or is the password that a \
                 browser asks for.\n",
                self.role.as_str()
            ),
        };
        let said = Said { answer: format!("{token}\n"), note, told: true };
        let (kind, valid_until_ms) = (CredentialKind::Token, None);
        let credential = NewCredential { hash: hash_token(&token), kind, valid_until_ms };
        self.enrol(place, credential, Some(&said)).await?;
        Ok(said)
    }

    async fn by_ticket(&self, place: Place<'_>, address: &str) -> Result<Said, CommandError> {
        let (name, ticket) = (self.name, new_token());
        let until_ms = place.now_ms.saturating_add(TICKET_VALID_MS);
        let mut answer = format!(
            "# Paste this on the host of the probe {name}, as the user that runs it: once, and \
             before {}.\numask 077\n",
            utc_stamp(until_ms)
        );
        let mut trust = "";
        let spoken = scheme(address, Plaintext::Loopback);
        if let (Ok(Scheme::Https), Ok(authority)) = (spoken, Authority::open(place.data_dir)) {
            trust = " --ca-file golem-uptime-ca.pem";
            // Writing to a text cannot fail.
            write!(answer, "cat > golem-uptime-ca.pem <<'END'\n{}END\n", authority.ca_pem).ok();
        }
        let common = format!("--aggregator {address}{trust} --token-file {name}.token");
        writeln!(answer, "uptime-probe join {common} <<'END'\n{ticket}\nEND").ok();
        writeln!(answer, "uptime-probe check {common}").ok();
        let mut note = format!(
            "Probe {name} is enrolled. The ticket in the text is exchanged for a token that only \
             the probe's host\nwill have. It is good once: if it is refused there, someone else \
             used it: revoke {name}.\n"
        );
        if let Err(fault) = spoken {
            writeln!(note, "Mind --address {address}: {fault}. The probe refuses it.").ok();
        }
        let said = Said { answer, note, told: true };
        let (hash, kind) = (hash_token(&ticket), CredentialKind::Ticket);
        let credential = NewCredential { hash, kind, valid_until_ms: Some(until_ms) };
        self.enrol(place, credential, Some(&said)).await?;
        Ok(said)
    }
}

fn of_certificate(issued: &Issued) -> NewCredential {
    let (hash, kind) = (issued.fingerprint, CredentialKind::Certificate);
    NewCredential { hash, kind, valid_until_ms: Some(issued.not_after_ms) }
}

/// The files of a client's certificate.
struct Files {
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

async fn issue(
    place: Place<'_>,
    name: &str,
    args: &CertificateArgs,
) -> Result<(Issued, Files), CommandError> {
    let authority = Authority::open(place.data_dir)?;
    // Before there is a certificate of it, so that none can pass without being on record.
    place.store().await?.add_authority(&authority.known_by).await?;
    let issued = authority.issue(&Subject::Client(name.to_owned()), args.days, place.now_ms)?;
    let file = |ending: &str| args.out.join(format!("{name}.{ending}"));
    let files = Files { cert: file("pem"), key: file("key"), ca: authority.ca_file.clone() };
    write_secret(&files.key, &issued.key_pem)?;
    write_secret(&files.cert, &issued.cert_pem).inspect_err(|_| files.remove(&[&files.key]))?;
    Ok((issued, files))
}

impl Files {
    fn remove(&self, files: &[&PathBuf]) {
        for file in files {
            // What stays is a certificate that nobody is enrolled for.
            fs::remove_file(file).ok();
        }
    }

    /// Leaves no certificate behind for which nobody was enrolled.
    fn said_if(
        self,
        enrolled: Result<(), CommandError>,
        issued: &Issued,
    ) -> Result<Said, CommandError> {
        if let Err(error) = enrolled {
            self.remove(&[&self.cert, &self.key]);
            return Err(error);
        }
        let (cert, key, ca) = (self.cert.display(), self.key.display(), self.ca.display());
        let note = format!(
            "Valid until {}. Take these files where they are used, and delete the first two \
             here:\n  {cert}\n  {key}\n  {ca}\n\
             A probe takes them as --cert-file, --key-file and --ca-file; the aggregator must \
             serve with --client-ca-file.\n",
            utc_stamp(issued.not_after_ms)
        );
        Ok(Said { note, ..Said::default() })
    }
}

/// Names of probes and of callers are one space; a command about the ones leaves the others alone.
async fn known(store: &mut SqliteStore, name: &str, probe: bool) -> Result<(), CommandError> {
    let identities = store.identities().await?;
    let there = match probe {
        true => identities.probes.contains_key(name),
        false => identities.callers.contains_key(name),
    };
    if there {
        return Ok(());
    }
    Err(refused(match probe {
        true => format!("no probe is named {name}; see: probe list"),
        false => format!("no reader or admin is named {name}; see: access list"),
    }))
}

fn changed(name: &str, changed: Changed) -> Result<(), CommandError> {
    match changed {
        Changed::Done => Ok(()),
        Changed::Revoked => Err(refused(format!("{name} is revoked, and stays so"))),
        Changed::Over => Err(refused(format!("{name} has ended already"))),
        Changed::NoSuchName | Changed::NoSuchTicket | Changed::NoSuchCredential => {
            Err(refused(format!("there is no {name}")))
        }
    }
}

async fn rotate(
    place: Place<'_>,
    name: &str,
    (overlap_s, keep_others): (u32, bool),
    certificate: &CertificateArgs,
) -> Result<Said, CommandError> {
    let until_ms = place.now_ms.saturating_add(i64::from(overlap_s) * 1000);
    let renew = async |mut store: SqliteStore, credential| -> Result<(), CommandError> {
        let by = place.by();
        let ends = Ends::keeping_others(keep_others);
        changed(name, store.renew(name, &credential, ends, until_ms, &by).await?)
    };
    let older = match (keep_others, certificate.certificate) {
        (false, _) => "Its older tokens and certificates end",
        (true, false) => "Its certificates stay good; its older tokens end",
        (true, true) => "Its tokens stay good; its older certificates end",
    };
    let until = utc_stamp(until_ms);
    let older = format!("{older} at {until}; see: access credentials {name}\n");
    if certificate.certificate {
        let (issued, files) = issue(place, name, certificate).await?;
        let renewed = renew(place.store().await?, of_certificate(&issued)).await;
        let mut said = files.said_if(renewed, &issued)?;
        said.note.push_str(&older);
        return Ok(said);
    }
    let token = new_token();
    let (hash, kind) = (hash_token(&token), CredentialKind::Token);
    let note = format!("The new token of {name} follows, once. {older}");
    let said = Said { answer: format!("{token}\n"), note, told: true };
    let credential = NewCredential { hash, kind, valid_until_ms: None };
    renew(place.store_telling(&said).await?, credential).await?;
    Ok(said)
}

/// What one name proves itself by, the oldest first.
async fn credentials(place: Place<'_>, name: &str) -> Result<Said, CommandError> {
    let identities = place.store().await?.identities().await?;
    let revoked = identities.probes.get(name).map(|probe| probe.revoked);
    let revoked = revoked.or(identities.callers.get(name).map(|caller| caller.revoked));
    let revoked = revoked
        .ok_or_else(|| refused(format!("nobody is named {name}; see: probe list, access list")))?;
    let mut said = Said::default();
    if revoked {
        said.note = format!("{name} is revoked: none of these is good.\n");
    }
    let of = identities.credentials.iter().filter(|(_, credential)| credential.name == name);
    let mut of: Vec<_> = of.collect();
    of.sort_by_key(|(hash, credential)| (credential.made_at_ms, **hash));
    for (hash, credential) in of {
        let (id, kind) = (credential_id(hash), credential.kind.as_str());
        let made = utc_stamp(credential.made_at_ms);
        let not_after = credential.not_after_ms.map_or("-".to_owned(), utc_stamp);
        let state = match credential.valid_until_ms {
            Some(until_ms) if credential.is_over(place.now_ms) => {
                format!("ended {}", utc_stamp(until_ms))
            }
            Some(until_ms) => format!("ends {}", utc_stamp(until_ms)),
            None => "in force".to_owned(),
        };
        writeln!(said.answer, "{id}\t{kind}\t{made}\t{not_after}\t{state}").ok();
    }
    Ok(said)
}

/// Ends one credential by its id.
async fn end(place: Place<'_>, id: &str) -> Result<Said, CommandError> {
    let hex = |letter: char| letter.is_ascii_hexdigit();
    let long_enough = id.len() >= CREDENTIAL_DIGITS_MIN && id.len() <= CREDENTIAL_DIGITS_MAX;
    if !long_enough || !id.chars().all(hex) {
        return Err(usage(format!(
            "{id:?} is no id of a credential: {CREDENTIAL_DIGITS_MIN} to {CREDENTIAL_DIGITS_MAX} \
             hexadecimal digits are wanted; see: access credentials NAME"
        )));
    }
    let mut store = place.store().await?;
    let identities = store.identities().await?;
    let begins = id.to_ascii_lowercase();
    let mut fits =
        identities.credentials.iter().filter(|(hash, _)| credential_id(hash).starts_with(&begins));
    let (hash, credential) = match (fits.next(), fits.next()) {
        (Some(one), None) => one,
        (None, _) => {
            return Err(refused(format!(
                "no credential's id begins with {id}; see: access credentials NAME"
            )));
        }
        (Some(_), Some(_)) => {
            return Err(refused(format!("several ids begin with {id}: give more of its digits")));
        }
    };
    let (name, kind) = (&credential.name, credential.kind.as_str());
    let what = format!("{kind} {} of {name}", credential_id(hash));
    changed(&what, store.end_credential(hash, &place.by()).await?)?;
    let mut note = format!("The {what} has ended; open calls with it are cut within seconds.\n");
    let left = proofs(&store.identities().await?, name, place.now_ms);
    writeln!(note, "What is left to {name}: {left}.").ok();
    Ok(Said { note, ..Said::default() })
}

async fn revoke(place: Place<'_>, name: &str, probe: bool) -> Result<Said, CommandError> {
    let mut store = place.store().await?;
    known(&mut store, name, probe).await?;
    changed(name, store.revoke(name, &place.by()).await?)?;
    let mut note = format!("{name} is revoked.\n");
    if probe {
        note.push_str(
            "What it handed in still counts. If it is not to be believed: probe retract\n",
        );
    }
    Ok(Said { note, ..Said::default() })
}

/// An instant as people write it: RFC 3339, or unix seconds.
fn instant_s(text: &str) -> Result<u64, CommandError> {
    let stamp = chrono::DateTime::parse_from_rfc3339(text);
    let seconds = text.parse().ok().or_else(|| u64::try_from(stamp.ok()?.timestamp()).ok());
    seconds.ok_or_else(|| {
        usage(format!("{text:?} is no time: 2026-01-31T12:00:00Z or unix seconds are wanted"))
    })
}

async fn retract(
    place: Place<'_>,
    name: &str,
    from: &str,
    to: &str,
    reason: &str,
) -> Result<Said, CommandError> {
    let (from_s, to_s) = (instant_s(from)?, instant_s(to)?);
    check_reason(reason).map_err(usage)?;
    if from_s >= to_s {
        return Err(usage(format!("from {from} to {to} there is no round")));
    }
    let mut store = place.store().await?;
    let probes = store.probes().await?;
    let probe = probes.iter().find(|probe| probe.name == name);
    let probe =
        probe.ok_or_else(|| refused(format!("no probe is named {name}; see: probe list")))?;
    let retraction = Retraction {
        number: 0,
        probe: probe.number,
        from_s,
        to_s,
        reason: reason.to_owned(),
        made_at_ms: place.now_ms,
        undone_at_ms: None,
    };
    let number = store.retract(&retraction, &place.by()).await?;
    let note = format!("To let it count again: uptime-aggregator probe undo-retraction {number}\n");
    Ok(Said { answer: format!("{number}\n"), note, ..Said::default() })
}

async fn retractions(place: Place<'_>) -> Result<Said, CommandError> {
    let mut store = place.store().await?;
    let probes = store.probes().await?;
    let mut said = Said::default();
    for retraction in store.retractions().await? {
        let probe = probes.iter().find(|probe| probe.number == retraction.probe);
        let name = probe.map_or("?", |probe| probe.name.as_str());
        let state = if retraction.undone_at_ms.is_some() { "undone" } else { "in-force" };
        let stamp = |seconds: u64| utc_stamp(i64::try_from(seconds * 1000).unwrap_or(i64::MAX));
        let (number, reason) = (retraction.number, &retraction.reason);
        let (from, to) = (stamp(retraction.from_s), stamp(retraction.to_s));
        writeln!(said.answer, "{number}\t{name}\t{from}\t{to}\t{state}\t{reason}").ok();
    }
    Ok(said)
}

/// The proofs of one identity that hold, as `token, certificate until …`.
fn proofs(identities: &Identities, name: &str, now_ms: i64) -> String {
    let of = identities.credentials.values().filter(|credential| credential.name == name);
    let mut texts: Vec<String> = of
        .filter(|credential| credential.valid_until_ms.is_none_or(|until| until > now_ms))
        .map(|credential| match credential.valid_until_ms {
            None => credential.kind.as_str().to_owned(),
            Some(until) => format!("{} until {}", credential.kind.as_str(), utc_stamp(until)),
        })
        .collect();
    texts.sort();
    if texts.is_empty() { "none on record".to_owned() } else { texts.join(", ") }
}

const fn state(revoked: bool) -> &'static str {
    if revoked { "revoked" } else { "enrolled" }
}

async fn list_probes(place: Place<'_>) -> Result<Said, CommandError> {
    let identities = place.store().await?.identities().await?;
    let mut said = Said::default();
    if identities.probes.is_empty() {
        said.note = "No probe is enrolled yet: uptime-aggregator probe add NAME\n".to_owned();
    }
    for probe in identities.probes.values() {
        let subnets = match probe.subnets_allowed.as_slice() {
            [] => "any subnet".to_owned(),
            some => some.join(","),
        };
        let (name, state) = (&probe.name, state(probe.revoked));
        let since = utc_stamp(probe.enrolled_at_ms);
        let proofs = proofs(&identities, name, place.now_ms);
        writeln!(said.answer, "{name}\t{state}\t{since}\t{subnets}\t{proofs}").ok();
    }
    Ok(said)
}

async fn list_callers(place: Place<'_>) -> Result<Said, CommandError> {
    let identities = place.store().await?.identities().await?;
    let mut said = Said::default();
    if identities.callers.is_empty() {
        said.note = "Nobody is enrolled to read or administer: uptime-aggregator access \
                     add-reader NAME\n"
            .to_owned();
    }
    for caller in identities.callers.values() {
        let (name, role, state) = (&caller.name, caller.role.as_str(), state(caller.revoked));
        let since = utc_stamp(caller.enrolled_at_ms);
        let proofs = proofs(&identities, name, place.now_ms);
        writeln!(said.answer, "{name}\t{role}\t{state}\t{since}\t{proofs}").ok();
    }
    Ok(said)
}

async fn audit(place: Place<'_>, count: u32) -> Result<Said, CommandError> {
    let mut said = Said::default();
    for line in place.store().await?.audit_log(None, count).await? {
        let at = utc_stamp(line.at_ms);
        let (actor, action, subject) = (line.actor, line.action, line.subject);
        let (times, detail) = (line.count, line.detail);
        writeln!(said.answer, "{at}\t{actor}\t{action}\t{subject}\t{times}\t{detail}").ok();
    }
    Ok(said)
}

#[cfg(test)]
#[path = "commands/tests.rs"]
mod tests;
