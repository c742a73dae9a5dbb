//! Which of many spans of time hold a moment.

use crate::trace::Nanos;

/// Spans of time with the indices of their exchanges. A question takes the logarithm of their number for each answer, also
/// where some spans last for hours and others for microseconds.
#[derive(Debug, Default)]
pub(super) struct Spans {
    /// The beginning of each, its end and its index, sorted.
    spans: Vec<(Nanos, Nanos, usize)>,
    /// A segment tree over `spans`: the latest end below each node. Node 1 is the root; node n has 2n and 2n + 1 below it.
    latest: Vec<Nanos>,
}

impl Spans {
    /// The spans of exchanges: the beginning, the end, and the index.
    pub(super) fn new(mut spans: Vec<(Nanos, Nanos, usize)>) -> Self {
        spans.sort_unstable();
        let leaves = spans.len().next_power_of_two();
        let mut latest = vec![0; 2 * leaves];
        for (leaf, (_, end, _)) in spans.iter().enumerate() {
            latest[leaves + leaf] = *end;
        }
        for node in (1..leaves).rev() {
            latest[node] = latest[2 * node].max(latest[2 * node + 1]);
        }
        Self { spans, latest }
    }

    /// The exchanges that began at `begin` or before and ended at `end` or later, the last one first; `None` if there are
    /// more than `most`.
    pub(super) fn holding(&self, begin: Nanos, end: Nanos, most: usize) -> Option<Vec<usize>> {
        let count = self.spans.partition_point(|(own, ..)| *own <= begin);
        let mut found = Vec::new();
        // Each node has its spans from `first`, as many as `width`.
        let mut nodes = vec![(1, 0, self.latest.len() / 2)];
        while let Some((node, first, width)) = nodes.pop() {
            if first >= count || self.latest[node] < end {
                continue;
            }
            if width == 1 {
                if found.len() == most {
                    return None;
                }
                found.push(self.spans[first].2);
                continue;
            }
            let half = width / 2;
            nodes.extend([(2 * node, first, half), (2 * node + 1, first + half, half)]);
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn exactly_those_are_found_that_hold_the_moment(
            spans in proptest::collection::vec((0..20_u64, 0..20_u64), 0..40),
            (begin, end, most) in (0..25_u64, 0..25_u64, 0..8_usize),
        ) {
            let spans: Vec<(Nanos, Nanos, usize)> =
                spans.into_iter().enumerate().map(|(index, (begin, length))| (begin, begin + length, index)).collect();
            let mut expected: Vec<_> = spans.iter().filter(|span| span.0 <= begin && span.1 >= end).copied().collect();
            expected.sort_unstable();
            let expected: Vec<usize> = expected.into_iter().rev().map(|(.., index)| index).collect();
            let found = Spans::new(spans).holding(begin, end, most);
            prop_assert_eq!(found, (expected.len() <= most).then_some(expected));
        }
    }
}
