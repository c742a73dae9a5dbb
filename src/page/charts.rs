//! Charts of counts, as rectangles in percent of the width and in pixels of the height.

use super::{
    model::{Activity, Page, Route},
    units,
};

/// The height of a chart.
pub(super) const HEIGHT: u64 = 72;

/// The height of a chart in a table.
pub(super) const SMALL: u64 = 22;

/// One rectangle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rect {
    pub(super) class: &'static str,
    pub(super) x: String,
    pub(super) width: String,
    pub(super) y: u64,
    pub(super) height: u64,
}

/// The pixels of a count. Something is never nothing.
fn pixels(count: u64, most: u64, height: u64) -> u64 {
    let pixels = u128::from(count) * u128::from(height) / u128::from(most.max(1));
    // It is at most the height.
    (pixels as u64).max(u64::from(count > 0))
}

/// The bins of requests over time, on each other: failed at the bottom, so that they are seen first.
pub(super) fn activity(activity: &Activity) -> Vec<Rect> {
    let most = most_active(activity);
    let bins = activity.bins.len() as u64;
    let mut rects = Vec::new();
    for (index, bin) in activity.bins.iter().enumerate() {
        let mut top = HEIGHT;
        for (class, count) in [("bad", bin.failed), ("warn", bin.client_error), ("ok", bin.ok)] {
            let height = pixels(count, most, HEIGHT).min(top);
            top -= height;
            if height > 0 {
                let x = units::percent(index as u64, bins);
                rects.push(Rect { class, x, width: units::percent(1, bins), y: top, height });
            }
        }
    }
    rects
}

/// The most requests in one bin.
pub(super) fn most_active(activity: &Activity) -> u64 {
    let total = |bin: &super::model::ActivityBin| bin.ok.saturating_add(bin.client_error).saturating_add(bin.failed);
    activity.bins.iter().map(total).max().unwrap_or(0)
}

/// Bars beside each other.
pub(super) fn bars(counts: &[u64], height: u64) -> Vec<Rect> {
    let most = counts.iter().copied().max().unwrap_or(0);
    let bins = counts.len() as u64;
    let bar = |(index, count): (usize, &u64)| {
        let tall = pixels(*count, most, height);
        let x = units::percent(index as u64, bins);
        Rect { class: "plain", x, width: units::percent(1, bins), y: height - tall, height: tall }
    };
    counts.iter().enumerate().filter(|(_, count)| **count > 0).map(bar).collect()
}

/// A chart whose bins have names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Histogram {
    pub(super) rects: Vec<Rect>,
    /// The range and the count of each bin from the first one to the last one that has any.
    pub(super) bins: Vec<(String, String)>,
    /// What the first and the last bin hold.
    pub(super) ends: Option<(String, String)>,
    pub(super) total: u64,
}

impl Histogram {
    fn new(counts: &[u64], height: u64, name: impl Fn(usize) -> String) -> Self {
        let Some(first) = counts.iter().position(|count| *count > 0) else { return Self::default() };
        let last = counts.iter().rposition(|count| *count > 0).unwrap_or(first);
        let shown = &counts[first..=last];
        let named = shown.iter().enumerate().map(|(index, count)| (name(first + index), units::count(*count)));
        Self {
            rects: bars(shown, height),
            bins: named.collect(),
            ends: Some((name(first), name(last))),
            total: shown.iter().fold(0, |total, count| total.saturating_add(*count)),
        }
    }

    /// Of sizes, in bins of powers of two.
    pub(super) fn of_sizes(counts: &[u64]) -> Self {
        // No size has more than 64 bits.
        Self::new(&counts[..counts.len().min(65)], HEIGHT, |bin| match bin {
            0 => "empty".to_owned(),
            1 => "1 B".to_owned(),
            _ => format!("{} to {}", units::bytes(1 << (bin - 1)), units::bytes(u64::MAX >> (64 - bin))),
        })
    }
}

/// The durations of a route, in words.
pub(super) fn durations(route: &Route, page: &Page) -> String {
    let edges = &page.duration_edges;
    let edge = |index: usize| edges.get(index).copied().map(units::duration);
    let name = |bin: usize| match (bin.checked_sub(1).and_then(edge), edge(bin)) {
        (None, Some(end)) => format!("below {end}"),
        (Some(begin), Some(end)) => format!("{begin} to {end}"),
        (Some(begin), None) => format!("{begin} and more"),
        (None, None) => "any".to_owned(),
    };
    let bins = route.histogram.iter().enumerate().filter(|(_, count)| **count > 0);
    let words: Vec<_> = bins.map(|(bin, count)| format!("{}: {}", name(bin), units::count(*count))).collect();
    words.join("; ")
}

/// From the first to the last bin that any route has something in.
pub(super) fn used(routes: &[Route]) -> std::ops::Range<usize> {
    let used = |index: usize| routes.iter().any(|route| route.histogram.get(index).is_some_and(|count| *count > 0));
    let bins = routes.iter().map(|route| route.histogram.len()).max().unwrap_or(0);
    let first = (0..bins).find(|bin| used(*bin)).unwrap_or(0);
    let last = (0..bins).rfind(|bin| used(*bin)).map_or(first, |bin| bin + 1);
    first..last
}

#[cfg(test)]
mod tests {
    use super::{super::model::ActivityBin, *};

    #[test]
    fn something_is_seen_beside_much() {
        let activity = Activity {
            start: 0,
            width: 1,
            bins: vec![ActivityBin { ok: 100_000, client_error: 0, failed: 1 }, ActivityBin::default()],
        };
        let rects = super::activity(&activity);
        assert_eq!(
            rects.iter().map(|rect| (rect.class, rect.y, rect.height)).collect::<Vec<_>>(),
            [("bad", 71, 1), ("ok", 0, 71)]
        );
    }

    #[test]
    fn sizes_have_names() {
        let histogram = Histogram::of_sizes(&[0, 3, 0, 4, 0]);
        assert_eq!(
            histogram.bins,
            [("1 B", "3"), ("2 B to 3 B", "0"), ("4 B to 7 B", "4")]
                .map(|(range, count)| { (range.to_owned(), count.to_owned()) })
        );
        assert_eq!(Histogram::of_sizes(&[1; 65]).bins[64].0, "8192 PiB to 16383 PiB");
        assert_eq!((Histogram::of_sizes(&[]), Histogram::of_sizes(&[0, 0])), Default::default());
    }
}
