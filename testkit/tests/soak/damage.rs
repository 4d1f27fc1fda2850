//! What is done to the spool of a probe that was killed.
//!
//! Owns the kinds of damage. Refuses to damage what tells of earlier damage while that is not
//! delivered: a gap that is lost is told of as about the rounds of its neighbours, not its own.

use std::path::{Path, PathBuf};

use rand::Rng;
use rand::rngs::StdRng;

use super::children::{self, Waiting};

/// Damages one of its segments as the dice say; answers how, and what waited in the spool before.
/// `None`: there was nothing that may be damaged.
pub(crate) async fn damage(
    directory: &Path,
    number: usize,
    dice: &mut StdRng,
) -> Option<(&'static str, Waiting)> {
    let waiting = children::waiting(directory, number).await;
    if waiting.gaps > 0 {
        return None;
    }
    let files = std::fs::read_dir(children::spool(directory, number)).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    let mut segments: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "spool")).collect();
    segments.sort();
    // What waits is mostly in the newest one.
    let newest = segments.len().saturating_sub(1);
    let path = match dice.random_bool(0.5) {
        true => segments.get(newest)?,
        false => segments.get(dice.random_range(0..=newest))?,
    };
    let mut bytes = std::fs::read(path).unwrap();
    let at = dice.random_range(0..bytes.len().max(1));
    let how = match dice.random_range(0..3) {
        0 => {
            *bytes.get_mut(at)? ^= 1 << dice.random_range(0..8);
            "spool: a bit flipped"
        }
        1 => {
            bytes.truncate(at);
            "spool: a file cut"
        }
        _ => {
            dice.fill(bytes.as_mut_slice());
            "spool: a file replaced by garbage"
        }
    };
    std::fs::write(path, bytes).unwrap();
    Some((how, waiting))
}
