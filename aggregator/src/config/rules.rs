//! The commands about the rules, as they are typed. What they do is in `rules::commands`.

use clap::{Args, Subcommand};
use uptime_proto::settings::{Settings, Texts};

use crate::rules::GivenRules;

/// What can be done with the rules.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Show the rules in force and those announced: state, since when, each rule
    Show,
    /// Change some rules; the others stay
    ///
    /// The change begins on the grid of the old and the new rounds, at least two rounds from now;
    /// rounds before keep their rules. What was announced before and has not begun is replaced; to
    /// withdraw it, set the rules that are in force. Only flags are read here, no environment
    /// variables and no file.
    Set(RuleArgs),
}

macro_rules! rule_args {
    ($($(#[doc = $doc:literal])+ $field:ident = $name:literal, $value:literal;)+) => {
        /// Rules to be changed, as texts.
        #[derive(Debug, Default, Args)]
        #[group(required = true, multiple = true)]
        pub struct RuleArgs {
            $($(#[doc = $doc])+ #[arg(long, value_name = $value)]
            pub $field: Option<String>,)+
        }

        impl RuleArgs {
            fn texts(&self) -> Texts {
                let pairs = [$(($name, &self.$field)),+];
                let said = pairs.into_iter().filter_map(|(name, text)| {
                    Some((name.to_owned(), vec![text.clone()?]))
                });
                said.collect()
            }
        }
    };
}

rule_args! {
    /// Length of a round in seconds; divides 86,400
    round_period_s = "round-period-s", "S";
    /// Seconds after a round's end in which its parts are on time
    grace_s = "grace-s", "S";
    /// How many probes must have found a node for it to be up
    positive_probes_min = "positive-probes-min", "K";
    /// The greatest age of the relay's `seen` that proves life, in seconds
    freshness_s = "freshness-s", "S";
    /// The relay session of a probe's daemon must be so old for its "not found" to count, in
    /// seconds
    relay_session_age_min_s = "relay-session-age-min-s", "S";
    /// How long a provider may take to answer a direct question, in milliseconds
    direct_timeout_ms = "direct-timeout-ms", "MS";
}

impl RuleArgs {
    /// What is wanted.
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
