//! The state of a simulation over time, for charts.

use scheduler_core::time::Span;

/// What holds from one instant on until the next point.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Point {
    /// Since the first arrival.
    pub at: Span,
    /// Jobs that wait.
    pub queued: u64,
    /// Shares of CPU, memory and GPUs in use, 0 to 1; 0 where the machines have none of it.
    pub used: [f64; 3],
}

/// How many jobs waited and what was in use, as steps.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Series {
    /// In the order of time, one for each instant at which something changed.
    pub points: Vec<Point>,
}

/// A stretch of time as a chart shows it.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Column {
    /// Weighted by time.
    pub(crate) mean: f64,
    pub(crate) most: f64,
}

impl Series {
    /// When the last point is.
    pub(crate) fn end(&self) -> Span {
        self.points.last().map_or(Span(0), |point| point.at)
    }

    /// A value cut into this many stretches of equal length.
    pub(crate) fn columns(&self, count: usize, value: impl Fn(&Point) -> f64) -> Vec<Column> {
        let end = self.end().0 as f64;
        let mut columns = vec![Column::default(); count];
        if end == 0.0 {
            return columns;
        }
        let width = end / count as f64;
        for pair in self.points.windows(2) {
            let (from, to, value) = (pair[0].at.0 as f64 / width, pair[1].at.0 as f64 / width, value(&pair[0]));
            let first = (from as usize).min(count - 1);
            let last = (to.ceil() as usize).clamp(first + 1, count);
            for (index, column) in columns.iter_mut().enumerate().take(last).skip(first) {
                let overlap = to.min(index as f64 + 1.0) - from.max(index as f64);
                if overlap > 0.0 {
                    column.mean += value * overlap;
                    column.most = column.most.max(value);
                }
            }
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_weighted_by_time() {
        let point = |at, queued| Point { at: Span(at), queued, used: [0.0; 3] };
        // 4 for half of the first column, 0 for the other half, 2 in all of the second.
        let series = Series { points: vec![point(0, 4), point(50, 0), point(100, 2), point(200, 0)] };
        let columns = series.columns(2, |point| point.queued as f64);
        assert_eq!(columns, [Column { mean: 2.0, most: 4.0 }, Column { mean: 2.0, most: 2.0 }]);
        assert_eq!(Series::default().columns(3, |_| 1.0), [Column::default(); 3]);
    }
}
