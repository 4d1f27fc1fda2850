//! Log positions: which commits of stored facts are included in a state.
//!
//! A position is a writer and its commit. Each process that stores facts is a new writer, and a
//! writer's commits are numbered from one without gaps, so one number per writer says which of its
//! commits are included. Owns the arithmetic of positions. Refuses to know where they are stored.

use std::collections::BTreeMap;

/// Names a writer: random, made when a process first stores facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WriterId(pub [u8; 16]);

impl WriterId {
    /// The writer of everything that was stored before positions existed.
    pub const LEGACY: Self = Self([0; 16]);
}

/// One commit of one writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The writer.
    pub writer: WriterId,
    /// The number of its commit; 0 is included in every set of positions.
    pub commit: u64,
}

/// The commits that are included in a state: of each writer all up to one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Positions(BTreeMap<WriterId, u64>);

impl Positions {
    /// Whether a commit is included.
    #[must_use]
    pub fn include(&self, position: Position) -> bool {
        position.commit <= self.of(position.writer)
    }

    /// The last commit of a writer that is included; 0: none.
    #[must_use]
    pub fn of(&self, writer: WriterId) -> u64 {
        self.0.get(&writer).copied().unwrap_or(0)
    }

    /// Includes a commit and all before it of the same writer.
    pub fn add(&mut self, position: Position) {
        if position.commit > 0 {
            let there = self.0.entry(position.writer).or_default();
            *there = position.commit.max(*there);
        }
    }

    /// Includes all commits that another set includes.
    pub fn merge(&mut self, other: &Self) {
        other.iter().for_each(|position| self.add(position));
    }

    /// The last commit of each writer, ascending by writer.
    pub fn iter(&self) -> impl Iterator<Item = Position> + '_ {
        self.0.iter().map(|(writer, commit)| Position { writer: *writer, commit: *commit })
    }
}

impl FromIterator<Position> for Positions {
    fn from_iter<I: IntoIterator<Item = Position>>(positions: I) -> Self {
        let mut all = Self::default();
        positions.into_iter().for_each(|position| all.add(position));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(writer: u8, commit: u64) -> Position {
        Position { writer: WriterId([writer; 16]), commit }
    }

    #[test]
    fn a_commit_includes_those_before_it_of_the_same_writer_only() {
        let mut positions: Positions = [at(1, 3), at(2, 1), at(1, 2)].into_iter().collect();
        assert!(positions.include(at(1, 3)) && positions.include(at(1, 1)));
        assert!(!positions.include(at(1, 4)) && !positions.include(at(3, 1)));
        assert!(positions.include(at(3, 0)), "commit 0 is before all");
        positions.merge(&[at(1, 1), at(3, 5)].into_iter().collect());
        assert_eq!(positions.iter().collect::<Vec<_>>(), [at(1, 3), at(2, 1), at(3, 5)]);
    }
}
