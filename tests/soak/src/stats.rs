//! A straight line through a series, with an uncertainty that may be trusted; and quantiles.

/// How much a series grows, per unit of its first coordinate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slope {
    pub(crate) per_hour: f64,
    /// One standard error.
    pub(crate) error: f64,
}

/// Points that a line needs to say anything.
const POINTS_MIN: usize = 8;

/// Least squares over (hours, value).
///
/// What is left beside the line is not independent from one sample to the next: memory rises and falls over many samples as
/// journals fill and are folded. Taken for independent, it would make the error look far smaller than it is. So the number of
/// samples that count is lowered by the correlation of neighbours, as for a series where each value follows from the one before.
pub(crate) fn slope(points: &[(f64, f64)]) -> Option<Slope> {
    if points.len() < POINTS_MIN {
        return None;
    }
    let count = points.len() as f64;
    let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / count;
    let (middle, level) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - middle).powi(2)).sum();
    if spread <= 0.0 {
        return None;
    }
    let per_hour = points.iter().map(|point| (point.0 - middle) * (point.1 - level)).sum::<f64>() / spread;
    let left: Vec<f64> = points.iter().map(|point| point.1 - level - per_hour * (point.0 - middle)).collect();
    let squares: f64 = left.iter().map(|left| left * left).sum();
    let neighbours: f64 = left.windows(2).map(|pair| pair[0] * pair[1]).sum();
    let correlation = if squares > 0.0 { (neighbours / squares).clamp(0.0, 0.98) } else { 0.0 };
    let error = (squares / (count - 2.0) / spread * (1.0 + correlation) / (1.0 - correlation)).sqrt();
    Some(Slope { per_hour, error })
}

/// The value below which this part of all lies; of nothing, zero.
pub(crate) fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (values.len().saturating_sub(1) as f64 * part).round() as usize;
    values.get(place).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{quantile, slope};

    #[test]
    fn a_line_is_found_and_a_wave_is_doubted() {
        let straight: Vec<(f64, f64)> = (0..100).map(|x| (f64::from(x), 3.0 + 2.0 * f64::from(x))).collect();
        let found = slope(&straight).unwrap();
        assert!((found.per_hour - 2.0).abs() < 1e-9 && found.error < 1e-6, "{found:?}");
        // One slow wave looks like growth to whoever counts each sample: the error must cover it.
        let wave: Vec<(f64, f64)> = (0..100).map(|x| (f64::from(x), (f64::from(x) / 20.0).sin())).collect();
        let found = slope(&wave).unwrap();
        assert!(found.per_hour.abs() < 2.0 * found.error, "{found:?}");
        assert!(slope(&straight[..5]).is_none());
    }

    #[test]
    fn quantiles_are_of_the_sorted_values() {
        let mut values = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!([0.0, 0.5, 1.0].map(|part| quantile(&mut values, part)), [1.0, 3.0, 5.0]);
        assert_eq!(quantile(&mut [], 0.5), 0.0);
    }
}
