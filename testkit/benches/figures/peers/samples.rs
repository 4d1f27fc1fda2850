//! The observations of a simulated network as the peers take them: one sample each.
//!
//! Owns how an observation becomes a sample: `OFFER` is `offer` at 1, `SEEN` is `seen` at 1,
//! `UNREACHABLE` is `seen` at 0, of one node and one probe, at the start of the round. The same
//! seed gives the same observations here as in the ledger. Knows how much of the time each node
//! was up.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use anyhow::ensure;
use uptime_proto::{Class, Period, Round};

use crate::history::{ROUND_S, first_round};
use crate::network::Network;

/// Samples are handed over by stretches of two hours of UTC: what Prometheus makes a block of.
const STRETCH_S: u64 = 7_200;

/// Characters of an id.
const WHOLE_ID: usize = 42;

/// One node, one class of evidence, one part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) round_s: u32,
    pub(crate) node: u32,
    pub(crate) probe: u16,
    pub(crate) class: Class,
}

impl Sample {
    /// What tells its series from others, in the order of series.
    fn series(&self) -> (bool, u16, u32) {
        (self.class != Class::Offer, self.probe, self.node)
    }

    fn metric(&self) -> &'static str {
        if self.class == Class::Offer { "offer" } else { "seen" }
    }

    fn value(&self) -> u8 {
        u8::from(self.class != Class::Unreachable)
    }
}

/// The samples of some rounds, in the order of rounds.
pub(crate) struct Stretch {
    samples: Vec<Sample>,
    ids: Arc<Vec<String>>,
}

impl Stretch {
    pub(crate) fn ids(&self) -> &[String] {
        &self.ids
    }

    pub(crate) fn samples(&self) -> &[Sample] {
        &self.samples
    }

    fn by_series(&self) -> Vec<Sample> {
        let mut samples = self.samples.clone();
        samples.sort_by_key(Sample::series);
        samples
    }

    fn labels(&self, sample: &Sample) -> (&str, &str, u16) {
        let id = self.ids.get(sample.node as usize).map_or("", String::as_str);
        (sample.metric(), id, sample.probe)
    }

    /// As OpenMetrics text, series by series.
    pub(crate) fn open_metrics(&self, text: &mut impl Write) -> std::io::Result<()> {
        let mut metric = "";
        for series in self.by_series().chunk_by(|one, next| one.series() == next.series()) {
            let Some(first) = series.first() else { continue };
            let (name, id, probe) = self.labels(first);
            if name != metric {
                metric = name;
                writeln!(text, "# TYPE {name} gauge")?;
            }
            let labels = format!("{name}{{node=\"{id}\",probe=\"probe-{probe}\"}}");
            for sample in series {
                writeln!(text, "{labels} {} {}", sample.value(), sample.round_s)?;
            }
        }
        writeln!(text, "# EOF")
    }

    /// As lines of JSON, a series each, in pieces of about so many bytes.
    pub(crate) fn json_lines(&self, piece_bytes: usize) -> std::io::Result<Vec<Vec<u8>>> {
        let (mut pieces, mut text) = (Vec::new(), Vec::new());
        for series in self.by_series().chunk_by(|one, next| one.series() == next.series()) {
            let Some(first) = series.first() else { continue };
            let (name, id, probe) = self.labels(first);
            write!(text, r#"{{"metric":{{"__name__":"{name}","node":"{id}","#)?;
            write!(text, r#""probe":"probe-{probe}"}},"values":["#)?;
            for (at, sample) in series.iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                write!(text, "{comma}{}", sample.value())?;
            }
            text.extend_from_slice(b"],\"timestamps\":[");
            for (at, sample) in series.iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                write!(text, "{comma}{}000", sample.round_s)?;
            }
            text.extend_from_slice(b"]}\n");
            if text.len() >= piece_bytes {
                pieces.push(std::mem::take(&mut text));
            }
        }
        if !text.is_empty() {
            pieces.push(text);
        }
        Ok(pieces)
    }
}

/// Makes the samples of one network, and keeps what is known of its last rounds.
pub(crate) struct Feed {
    network: Network,
    ids: Arc<Vec<String>>,
    round: Round,
    end_s: u64,
    known_from_s: u64,
    up_rounds: Vec<u32>,
    /// Rounds in which each was seen, of all.
    seen_rounds: Vec<(u32, u32)>,
    /// Nodes from this place on make no samples.
    nodes_max: u32,
    pub(crate) observations: u64,
}

impl Feed {
    /// So many rounds of this network; of the last `known_rounds` it is told who was up.
    pub(crate) fn new(network: Network, rounds: u64, known_rounds: u64) -> anyhow::Result<Self> {
        ensure!(known_rounds <= rounds, "{known_rounds} of {rounds} rounds cannot be known");
        let round = first_round(Period::new(ROUND_S)?)?;
        let end_s = round.start_s() + rounds * u64::from(ROUND_S);
        let known_from_s = end_s - known_rounds * u64::from(ROUND_S);
        let ids: Vec<String> = network.ids.iter().map(ToString::to_string).collect();
        let (ids, up_rounds, observations) = (Arc::new(ids), vec![0; network.ids.len()], 0);
        let (seen_rounds, nodes_max) = (vec![(0, 0); ids.len()], u32::MAX);
        Ok(Self {
            network,
            ids,
            round,
            end_s,
            known_from_s,
            up_rounds,
            seen_rounds,
            nodes_max,
            observations,
        })
    }

    /// The same rounds at another time.
    pub(crate) fn starting(mut self, first: Round) -> Self {
        let (before_s, first_s) = (self.round.start_s(), first.start_s());
        self.end_s = self.end_s - before_s + first_s;
        self.known_from_s = self.known_from_s - before_s + first_s;
        self.round = first;
        self
    }

    /// Samples of the first so many nodes only; the dice fall as for all.
    pub(crate) fn of_first(mut self, nodes: u32) -> Self {
        self.nodes_max = nodes;
        self
    }

    /// Of each node that makes samples, its id and the share of its samples that say seen: what a
    /// mean over them comes to.
    pub(crate) fn seen(&self) -> Vec<(String, f64)> {
        let share = |(seen, all): &(u32, u32)| f64::from(*seen) / f64::from(*all);
        let all = self.ids.iter().cloned().zip(self.seen_rounds.iter().map(share));
        all.take(self.nodes_max as usize).collect()
    }

    /// The next stretch; `None` at the end.
    pub(crate) fn stretch(&mut self) -> anyhow::Result<Option<Stretch>> {
        let until_s = ((self.round.start_s() / STRETCH_S + 1) * STRETCH_S).min(self.end_s);
        let mut samples = Vec::new();
        while self.round.start_s() < until_s {
            self.look(&mut samples)?;
            self.round = self.round.next();
            self.network.advance();
        }
        self.observations += samples.len() as u64;
        let ids = Arc::clone(&self.ids);
        Ok((!samples.is_empty()).then_some(Stretch { samples, ids }))
    }

    /// As the ledger's history looks, so that the dice fall the same.
    fn look(&mut self, samples: &mut Vec<Sample>) -> anyhow::Result<()> {
        let round_s = u32::try_from(self.round.start_s())?;
        for (probe, view) in (0..).zip(self.network.look().views) {
            let stages = self.network.stages(view, self.round);
            for (class, nodes) in stages.all().flat_map(|piece| &piece.groups) {
                let nodes = nodes.iter().filter(|node| **node < self.nodes_max);
                for node in nodes {
                    samples.push(Sample { round_s, node: *node, probe, class: *class });
                    if *class != Class::Offer
                        && let Some((seen, all)) = self.seen_rounds.get_mut(*node as usize)
                    {
                        *seen += u32::from(*class == Class::Seen);
                        *all += 1;
                    }
                }
            }
        }
        if self.round.start_s() >= self.known_from_s {
            for (rounds, up) in self.up_rounds.iter_mut().zip(self.network.up()) {
                *rounds += u32::from(*up);
            }
        }
        Ok(())
    }

    /// What the peers are asked.
    pub(crate) fn question(&self, id_starts: &str) -> Question {
        let id_starts = id_starts.to_owned();
        Question { from_s: self.known_from_s, to_s: self.end_s, id_starts }
    }

    /// The share of the known rounds in which each node was up, of nodes whose id starts so.
    pub(crate) fn known(&self, id_starts: &str) -> BTreeMap<String, f64> {
        let rounds = (self.end_s - self.known_from_s) / u64::from(ROUND_S);
        let share = |up: &u32| f64::from(*up) / rounds as f64;
        let all = self.ids.iter().cloned().zip(self.up_rounds.iter().map(share));
        all.filter(|(id, _)| id.starts_with(id_starts)).collect()
    }
}

/// How much of this stretch were the nodes up whose id starts so?
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) from_s: u64,
    pub(crate) to_s: u64,
    /// The whole id of one node, or how the ids of some begin.
    pub(crate) id_starts: String,
}

impl Question {
    /// In the language of Prometheus and VictoriaMetrics, and the time to ask it at. A node is up
    /// in a round when any probe saw it. `look_back` makes of a series what it has in one round.
    pub(crate) fn promql(&self, look_back: fn(&str) -> String) -> (String, String) {
        let series = if self.id_starts.is_empty() {
            "seen".to_owned()
        } else if self.id_starts.len() == WHOLE_ID {
            format!("seen{{node=\"{}\"}}", self.id_starts)
        } else {
            format!("seen{{node=~\"{}.+\"}}", self.id_starts)
        };
        // A second less than the whole: whether the left end belongs to it differs.
        let range_s = self.to_s - self.from_s - 1;
        let in_round = look_back(&series);
        let query = format!("avg_over_time((max by (node) ({in_round}))[{range_s}s:{ROUND_S}s])");
        (query, (self.to_s - u64::from(ROUND_S)).to_string())
    }
}
