//! The commands about the rules, as typed. `rules::commands` carries them out.
//!
//! Owns the help of each rule.

use clap::{Args, Subcommand};
use uptime_proto::settings::{Settings, Texts};

use crate::rules::GivenRules;

/// Commands about the rules.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Show the current and the announced rules
    Show,
    /// Change some rules; the others stay
    ///
    /// The change starts where old and new rounds align, at least two rounds ahead. Earlier rounds
    /// keep their rules. A new change replaces one that has not started; to withdraw it, set the
    /// current rules. This command reads flags only, no environment variables and no file.
    Set(RuleArgs),
}

/// The help of a rule, for `serve` and `rules set`.
macro_rules! rule_help {
    (round_period_s) => {
        "Length of a round in seconds; divides 86,400"
    };
    (grace_s) => {
        "Seconds after the end of a round in which its parts are on time"
    };
    (positive_probes_min) => {
        "Probes that must find a node for it to be up"
    };
    (freshness_s) => {
        "Maximum age in seconds of the relay's last contact for a node to be alive"
    };
    (relay_session_age_min_s) => {
        "Minimum age in seconds of a probe's relay session \
         for its negative look-ups to count"
    };
    (direct_timeout_ms) => {
        "Milliseconds a provider has to answer a direct question"
    };
}
pub(super) use rule_help;

macro_rules! rule_args {
    ($($field:ident = $name:literal, $value:literal;)+) => {
        /// Rules to change, as texts.
        #[derive(Debug, Default, Args)]
        #[group(required = true, multiple = true)]
        #[allow(missing_docs, reason = "--help documents them")]
        pub struct RuleArgs {
            $(#[arg(long, value_name = $value, help = rule_help!($field))]
            pub $field: Option<String>,)+
        }

        impl RuleArgs {
            fn texts(&self) -> Texts {
                let pairs = [$(($name, &self.$field)),+];
                let set = pairs.into_iter().filter_map(|(name, text)| {
                    Some((name.to_owned(), vec![text.clone()?]))
                });
                set.collect()
            }
        }
    };
}

rule_args! {
    round_period_s = "round-period-s", "S";
    grace_s = "grace-s", "S";
    positive_probes_min = "positive-probes-min", "K";
    freshness_s = "freshness-s", "S";
    relay_session_age_min_s = "relay-session-age-min-s", "S";
    direct_timeout_ms = "direct-timeout-ms", "MS";
}

impl RuleArgs {
    /// The wanted rules.
    ///
    /// # Errors
    /// Every fault of it, each with the name of the setting and what it may be.
    pub fn given(&self) -> Result<GivenRules, Vec<String>> {
        let mut settings = Settings::new(self.texts(), Texts::new());
        let given = GivenRules::read(&mut settings);
        settings.finish()?;
        Ok(given)
    }
}
