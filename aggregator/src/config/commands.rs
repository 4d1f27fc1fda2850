//! The commands about identities, as typed. `access::commands` carries them out.
//!
//! Owns their flags and help.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Options for a certificate instead of a token.
#[derive(Debug, Clone, Args)]
pub struct CertificateArgs {
    /// Issue a certificate of the built-in authority instead of a token; writes NAME.pem and
    /// NAME.key (see: authority init)
    #[arg(long)]
    pub certificate: bool,
    /// Directory for the certificate files
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
    /// Days the certificate is valid
    #[arg(long, value_name = "DAYS", default_value_t = crate::access::authority::LEAF_DAYS,
        value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub days: u32,
}

/// Commands about probes.
#[derive(Debug, Subcommand)]
pub enum ProbeCommand {
    /// Enrol a probe and print its token. Only a hash is stored, so the token is shown once
    Add {
        /// Name: letters, digits, '-', '_' and '.'
        name: String,
        /// Subnet the probe may report; repeatable [default: any]
        #[arg(long = "subnet-allowed", value_name = "TAG")]
        subnets_allowed: Vec<String>,
        /// Print a ticket instead, to paste on the probe's host. It is valid once, for one day, and
        /// is exchanged for a token
        #[arg(long, conflicts_with = "certificate")]
        ticket: bool,
        /// With --ticket: URL at which the probe reaches this aggregator
        #[arg(long, value_name = "URL", default_value = "https://ADDRESS:7640")]
        address: String,
        /// Options of a certificate.
        #[command(flatten)]
        certificate: CertificateArgs,
    },
    /// List probes with name, state, date, subnets and credentials
    List,
    /// Give a probe a new token and print it; its older tokens and certificates expire after the
    /// overlap
    ///
    /// Certificates of your own authority are not recorded here and stay valid: revoke the
    /// probe, or revoke them at that authority.
    Rotate {
        /// Name of the probe
        name: String,
        /// Seconds until older credentials expire; 0 if one was stolen. Tickets expire at once
        #[arg(long, value_name = "S", default_value_t = 86_400,
            value_parser = clap::value_parser!(u32).range(0..=2_592_000))]
        overlap_s: u32,
        /// Keep certificates valid beside the new token, or tokens beside the new certificate
        #[arg(long)]
        keep_others: bool,
        /// Options of a certificate.
        #[command(flatten)]
        certificate: CertificateArgs,
    },
    /// Revoke a probe permanently; its connection is closed within seconds
    Revoke {
        /// Name of the probe
        name: String,
    },
    /// Exclude a probe's evidence of an interval. Reversible; nothing is deleted
    Retract {
        /// Name of the probe
        name: String,
        /// First round start to exclude: 2026-01-31T12:00:00Z or Unix seconds
        #[arg(long, value_name = "TIME")]
        from: String,
        /// End, exclusive
        #[arg(long, value_name = "TIME")]
        to: String,
        /// Reason, for the record
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Undo a retraction: its evidence counts again
    UndoRetraction {
        /// Number of the retraction (see: retractions)
        number: u64,
    },
    /// List retractions with number, probe, from, to, state and reason
    Retractions,
}

/// Commands about readers and admins.
#[derive(Debug, Subcommand)]
pub enum AccessCommand {
    /// Add a reader and print the token
    AddReader {
        /// Name: letters, digits, '-', '_' and '.'
        name: String,
        /// Options of a certificate.
        #[command(flatten)]
        certificate: CertificateArgs,
    },
    /// Add an admin, who may read and administer over the network, and print the token
    AddAdmin {
        /// Name: letters, digits, '-', '_' and '.'
        name: String,
        /// Options of a certificate.
        #[command(flatten)]
        certificate: CertificateArgs,
    },
    /// List readers and admins with name, role, state, date and credentials
    List,
    /// Give a reader or admin a new token and print it; older tokens and certificates expire after
    /// the overlap
    ///
    /// Certificates of your own authority are not recorded here and stay valid: revoke the name, or
    /// revoke them at that authority.
    Rotate {
        /// Name of the reader or admin
        name: String,
        /// Seconds until older credentials expire; 0 if one was stolen
        #[arg(long, value_name = "S", default_value_t = 86_400,
            value_parser = clap::value_parser!(u32).range(0..=2_592_000))]
        overlap_s: u32,
        /// Keep certificates valid beside the new token, or tokens beside the new certificate
        #[arg(long)]
        keep_others: bool,
        /// Options of a certificate.
        #[command(flatten)]
        certificate: CertificateArgs,
    },
    /// Revoke a reader or admin permanently; open calls are closed within seconds
    Revoke {
        /// Name of the reader or admin
        name: String,
    },
    /// List the credentials of a reader, admin or probe: id, kind, created, latest expiry, state
    ///
    /// Certificates of your own authority are not recorded here.
    Credentials {
        /// Name of the reader, admin or probe
        name: String,
    },
    /// Revoke one token, certificate or ticket permanently; calls that use it are closed within
    /// seconds
    End {
        /// Id, or a unique prefix of it (see: credentials)
        id: String,
    },
    /// Print the audit log, newest first: time, actor, action, subject, count, detail
    Audit {
        /// Number of lines
        #[arg(long, value_name = "N", default_value_t = 100,
            value_parser = clap::value_parser!(u32).range(1..=100_000))]
        count: u32,
    },
}

/// Commands about the built-in certificate authority.
#[derive(Debug, Subcommand)]
pub enum AuthorityCommand {
    /// Create the authority: a key in the data directory and the certificate that clients trust
    Init,
    /// Issue or reissue the server certificate; a running serve loads it
    IssueServer {
        /// Host names and addresses by which clients reach this aggregator
        #[arg(required = true)]
        names: Vec<String>,
        /// Days the certificate is valid
        #[arg(long, value_name = "DAYS", default_value_t = crate::access::authority::LEAF_DAYS,
            value_parser = clap::value_parser!(u32).range(1..=3_650))]
        days: u32,
    },
    /// Print the certificate that clients must trust
    Show,
}
