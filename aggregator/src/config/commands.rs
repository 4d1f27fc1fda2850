//! The commands about identities, as they are typed. What they do is in `access::commands`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// A certificate where one is wanted instead of a token.
#[derive(Debug, Clone, Args)]
pub struct CertificateArgs {
    /// Issue a certificate of the built-in authority instead of a token, and write NAME.pem and
    /// NAME.key (see: authority init)
    #[arg(long)]
    pub certificate: bool,
    /// Where to write them
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
    /// How long it is valid
    #[arg(long, value_name = "DAYS", default_value_t = crate::access::authority::LEAF_DAYS,
        value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub days: u32,
}

/// What can be done with probes.
#[derive(Debug, Subcommand)]
pub enum ProbeCommand {
    /// Enrol a probe and print its token: once, it is stored only as a hash
    Add {
        /// Letters, digits, '-', '_' and '.'
        name: String,
        /// A subnet it may speak for; repeatable; none: any
        #[arg(long = "subnet-allowed", value_name = "TAG")]
        subnets_allowed: Vec<String>,
        /// Print what to paste on the probe's host instead: a ticket, good once and for a day,
        /// which that host exchanges for its token
        #[arg(long, conflicts_with = "certificate")]
        ticket: bool,
        /// With --ticket: where the probe reaches this aggregator
        #[arg(long, value_name = "URL", default_value = "https://ADDRESS:7640")]
        address: String,
        /// A certificate instead.
        #[command(flatten)]
        certificate: CertificateArgs,
    },
    /// List the enrolled probes: name, state, since when, subnets, proofs
    List,
    /// Give a probe a new token and print it; everything it had before, tokens and certificates,
    /// ends after a while
    ///
    /// Certificates of an authority of your own are not on record here and stay good: revoke the
    /// probe, or have that authority end them.
    Rotate {
        /// Which
        name: String,
        /// After so long; 0 where one was stolen. Tickets end at once
        #[arg(long, value_name = "S", default_value_t = 86_400,
            value_parser = clap::value_parser!(u32).range(0..=2_592_000))]
        overlap_s: u32,
        /// Let its certificates stay good beside the new token, or its tokens beside the new
        /// certificate
        #[arg(long)]
        keep_others: bool,
        /// A certificate instead.
        #[command(flatten)]
        certificate: CertificateArgs,
    },
    /// End a probe's identity, for good; its live stream is cut within seconds
    Revoke {
        /// Which
        name: String,
    },
    /// Take a probe's evidence of an interval out of the count. Reversible; nothing is deleted
    Retract {
        /// Whose
        name: String,
        /// Rounds that start from then on: 2026-01-31T12:00:00Z, or unix seconds
        #[arg(long, value_name = "TIME")]
        from: String,
        /// And before then
        #[arg(long, value_name = "TIME")]
        to: String,
        /// Why, for those who look at it later
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Let it count again
    UndoRetraction {
        /// Its number, see: retractions
        number: u64,
    },
    /// List the retractions: number, probe, from, to, state, reason
    Retractions,
}

/// What can be done with those who read and administer.
#[derive(Debug, Subcommand)]
pub enum AccessCommand {
    /// Let someone read, and print the token
    AddReader {
        /// Letters, digits, '-', '_' and '.'
        name: String,
        /// A certificate instead.
        #[command(flatten)]
        certificate: CertificateArgs,
    },
    /// Let someone read and administer over the network, and print the token
    AddAdmin {
        /// Letters, digits, '-', '_' and '.'
        name: String,
        /// A certificate instead.
        #[command(flatten)]
        certificate: CertificateArgs,
    },
    /// List readers and admins: name, role, state, since when, proofs
    List,
    /// Give one of them a new token and print it; everything they had before, tokens and
    /// certificates, ends after a while
    ///
    /// Certificates of an authority of your own are not on record here and stay good: revoke the
    /// name, or have that authority end them.
    Rotate {
        /// Whom
        name: String,
        /// After so long; 0 where one was stolen
        #[arg(long, value_name = "S", default_value_t = 86_400,
            value_parser = clap::value_parser!(u32).range(0..=2_592_000))]
        overlap_s: u32,
        /// Let their certificates stay good beside the new token, or their tokens beside the new
        /// certificate
        #[arg(long)]
        keep_others: bool,
        /// A certificate instead.
        #[command(flatten)]
        certificate: CertificateArgs,
    },
    /// End one of them, for good; open calls are cut within seconds
    Revoke {
        /// Whom
        name: String,
    },
    /// List what one name, of a probe, too, proves itself by: id, kind, made when, good until at
    /// most, and whether and when it ends or has ended
    ///
    /// Certificates of an authority of your own are not on record here.
    Credentials {
        /// Whose
        name: String,
    },
    /// End one token, certificate or ticket, for good; open calls with it are cut within seconds
    End {
        /// Its id, or the beginning of it where one fits; see: credentials
        id: String,
    },
    /// Print the trail, newest first: when, who, what, whom, how often, the rest
    Audit {
        /// So many lines
        #[arg(long, value_name = "N", default_value_t = 100,
            value_parser = clap::value_parser!(u32).range(1..=100_000))]
        count: u32,
    },
}

/// What can be done with the built-in certificate authority.
#[derive(Debug, Subcommand)]
pub enum AuthorityCommand {
    /// Make the authority: a key in the data directory, and the certificate that clients trust
    Init,
    /// Issue, or issue anew, the server's certificate; a running serve takes it by itself
    IssueServer {
        /// The names and addresses that clients know this aggregator by
        #[arg(required = true)]
        names: Vec<String>,
        /// How long it is valid
        #[arg(long, value_name = "DAYS", default_value_t = crate::access::authority::LEAF_DAYS,
            value_parser = clap::value_parser!(u32).range(1..=3_650))]
        days: u32,
    },
    /// Print the certificate that clients are to trust
    Show,
}
