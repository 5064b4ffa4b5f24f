//! Medians and ranges of repeated measurements, and numbers as people read them.

/// The middle and the ends of what the rounds gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    /// The middle value, or the mean of the two in the middle.
    pub(crate) median: f64,
    /// The least.
    pub(crate) least: f64,
    /// The most.
    pub(crate) most: f64,
}

impl Spread {
    /// Of all values that are numbers; `None` if there is none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (&least, &most) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { values[middle - 1].midpoint(values[middle]) };
        Some(Self { median, least, most })
    }

    /// `median (least to most)` with `digits` after the point; only the value if all are the same.
    pub(crate) fn text(&self, digits: usize) -> String {
        let [median, least, most] = [self.median, self.least, self.most].map(|value| number(value, digits));
        if least == most { median } else { format!("{median} ({least} to {most})") }
    }
}

/// A number with `digits` after the point and commas between thousands.
pub(crate) fn number(value: f64, digits: usize) -> String {
    let plain = format!("{value:.digits$}");
    let (whole, fraction) = plain.split_once('.').map_or((plain.as_str(), None), |(a, b)| (a, Some(b)));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |rest| ("-", rest));
    let mut text = String::from(sign);
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) && digit.is_ascii_digit() {
            text.push(',');
        }
        text.push(digit);
    }
    if let Some(fraction) = fraction {
        text.push('.');
        text.push_str(fraction);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_count_lies_between_two() {
        let cases: [(&[f64], Option<[f64; 3]>); 5] = [
            (&[], None),
            (&[f64::NAN], None),
            (&[7.0], Some([7.0, 7.0, 7.0])),
            (&[3.0, 1.0, 2.0], Some([2.0, 1.0, 3.0])),
            (&[4.0, 1.0, f64::NAN, 2.0, 9.0], Some([3.0, 1.0, 9.0])),
        ];
        for (values, expected) in cases {
            let found = Spread::of(values.iter().copied()).map(|s| [s.median, s.least, s.most]);
            assert_eq!(found, expected, "{values:?}");
        }
    }

    #[test]
    fn numbers_have_commas_and_spreads_their_range() {
        let cases = [
            (0.0, 0, "0"),
            (999.4, 0, "999"),
            (1000.0, 0, "1,000"),
            (1_234_567.891, 2, "1,234,567.89"),
            (-1234.5, 1, "-1,234.5"),
        ];
        for (value, digits, expected) in cases {
            assert_eq!(number(value, digits), expected);
        }
        let spread = Spread { median: 2.0, least: 1.0, most: 3.0 };
        assert_eq!(spread.text(1), "2.0 (1.0 to 3.0)");
        assert_eq!(Spread { median: 2.01, least: 2.0, most: 2.02 }.text(1), "2.0");
    }
}
