//! What a change of the rules makes of the epochs, and what is said of settings that differ.

use uptime_proto::Epochs;
use uptime_proto::settings::Texts;

use super::*;

fn rules(start_s: u64, period_s: u32) -> Epoch {
    Epoch { start_s, ..Epoch::with_defaults(Period::new(period_s).unwrap()) }
}

fn given(texts: &[(&str, &str)]) -> Result<GivenRules, Vec<String>> {
    let texts = texts.iter().map(|(name, text)| ((*name).to_owned(), vec![(*text).to_owned()]));
    let mut settings = Settings::new(texts.collect(), Texts::new());
    let given = GivenRules::read(&mut settings);
    settings.finish().map(|()| given)
}

#[test]
fn only_what_is_named_changes_and_nothing_is_what_it_may_not_be() {
    let stored = Epoch { grace_s: 9, retire_after_s: 77, ..rules(630, 30) };
    let wanted = given(&[("round-period-s", "3600"), ("freshness-s", "25")]).unwrap();
    let period = Period::new(3_600).unwrap();
    assert_eq!(wanted.over(&stored), Epoch { period, freshness_s: 25, ..stored.clone() });
    assert_eq!(GivenRules::default().over(&stored), stored);
    let wrong = [("round-period-s", "7"), ("grace-s", "3601"), ("positive-probes-min", "many")];
    let faults = given(&wrong).unwrap_err();
    assert_eq!(faults.len(), 3, "{faults:?}");
    for ((name, _), fault) in wrong.iter().zip(&faults) {
        assert!(fault.contains(name), "{fault}");
    }
}

#[test]
fn a_change_begins_on_both_grids_and_replaces_what_has_not_begun() {
    let (a, now_s) = (rules(0, 30), 1_000_000);
    let plan = |there: &[Epoch], wanted: &Epoch, now_s: u64| {
        let planned = super::plan(there, wanted, i64::try_from(now_s).unwrap() * 1000);
        planned.map(|it| (it.kept, it.epoch.map(|epoch| (epoch.start_s, epoch.period.seconds()))))
    };
    for period_s in [1, 10, 45, 60, 3_600, 86_400] {
        let wanted = rules(0, period_s);
        let (kept, epoch) = plan(std::slice::from_ref(&a), &wanted, now_s).unwrap();
        let (start_s, there_s) = epoch.unwrap();
        assert_eq!((kept, there_s), (1, period_s));
        let ahead_s = start_s - now_s;
        assert!(ahead_s >= 2 * u64::from(period_s.max(30)) && ahead_s <= AHEAD_S_MAX);
        Epochs::new(vec![a.clone(), Epoch { start_s, ..wanted }]).unwrap();
    }
    let b = |start_s| rules(start_s, 60);
    let soon_s = 1_000_200;
    let far_s = 2_000_000_040;
    for (there, wanted, expected) in [
        // Nothing differs from what is in force, or from what is announced.
        (vec![a.clone()], &a, None),
        (vec![a.clone(), b(900_000)], &b(0), None),
        (vec![a.clone(), b(soon_s)], &b(0), None),
        // Announced, then something else, or what is in force, is wanted.
        (vec![a.clone(), b(soon_s)], &rules(0, 10), Some((1, Some((1_000_110, 10))))),
        (vec![a.clone(), b(soon_s)], &a, Some((1, None))),
        // What has begun stays.
        (vec![a.clone(), b(900_000)], &a, Some((2, Some((1_000_200, 30))))),
        // A clock was far ahead: the same rules, soon.
        (vec![a.clone(), b(far_s)], &b(0), Some((1, Some((1_000_200, 60))))),
        (vec![a.clone(), b(far_s), rules(far_s + 600, 10)], &a, Some((1, None))),
    ] {
        assert_eq!(plan(&there, wanted, now_s), expected, "{there:?}, {wanted:?}");
    }
    assert_eq!(plan(&[], &a, now_s), None);
    // Before 1970 the first is in force, too.
    assert_eq!(super::plan(&[b(600)], &a, -1).map(|it| it.kept), Some(1));
}

#[test]
fn only_settings_that_somebody_named_can_differ() {
    let stored = Epoch { freshness_s: 25, ..rules(0, 60) };
    assert_eq!(differing(&GivenRules::default(), &stored, Path::new("data")), None);
    assert_eq!(
        differing(&given(&[("freshness-s", "25")]).unwrap(), &stored, Path::new("data")),
        None
    );
    let other = given(&[("round-period-s", "30"), ("freshness-s", "25"), ("grace-s", "7")]);
    assert_eq!(
        differing(&other.unwrap(), &stored, Path::new("data")).unwrap(),
        "settings differ from the stored rules, which stay: --round-period-s is 60 in the store \
         and 30 here, --grace-s is 5 in the store and 7 here; to change the rules: \
         uptime-aggregator rules set --round-period-s 30 --grace-s 7 --data-dir data"
    );
}

#[test]
fn rules_dated_by_a_wrong_clock_are_named() {
    let epochs = [rules(0, 30), rules(2_000_000_040, 60)];
    let said = far_ahead(&epochs, 1_000_000_000, Path::new("data")).unwrap();
    for wanted in ["2033-05-18T03:34:00", "rules set --round-period-s 60 --data-dir data"] {
        assert!(said.contains(wanted), "{said}");
    }
    assert_eq!(
        far_ahead(&epochs, 2_000_000_000_000, Path::new("data")),
        None,
        "announced just now"
    );
    assert_eq!(far_ahead(&epochs[..1], -1, Path::new("data")), None);
}
