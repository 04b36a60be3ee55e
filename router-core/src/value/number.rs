//! [`Number`]: a number that keeps the digits that it was written with.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use hifijson::SliceLexer;
use hifijson::num::LexWrite as _;
use smol_str::{SmolStr, format_smolstr};

/// A number of JSON, of any length, with the digits that it was written with.
///
/// Two of them are equal if they are the same number: `1E2` is `100`. Nothing is calculated, so nothing is
/// rounded.
#[derive(Clone)]
pub struct Number(SmolStr);

/// A text that is no number of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NumberError {
    /// It has not the form of one.
    #[error("this is no number")]
    Form,
    /// No number has so many digits, and a few bytes would stand for them.
    #[error("the exponent of this number is too large")]
    Exponent,
}

impl Number {
    /// The number as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number if it is written as a whole one and 64 bits hold it.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        self.0.parse().ok()
    }

    /// The number if it is written as a whole one and 64 bits without a sign hold it.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        self.0.parse().ok()
    }

    /// The nearest float. That of a number beyond their range is infinite.
    #[must_use]
    pub fn to_f64_lossy(&self) -> f64 {
        self.0.parse().unwrap_or(f64::NAN)
    }

    /// The float that has the digits of this number when it is written again; `None` where there is none.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        Self::exact_f64(&self.0)
    }

    /// The float that has the digits of this decimal number, also in a form that JSON does not have, such as `+.5`.
    /// `None` where there is none.
    #[must_use]
    pub fn exact_f64(text: &str) -> Option<f64> {
        let float: f64 = text.parse().ok()?;
        let exact =
            float.is_finite() && Decimal::parse(&format_smolstr!("{float:e}")) == Decimal::parse(text);
        exact.then_some(float)
    }

    /// The digits of a whole number, without a point or an exponent: those of `1E2` are `100`. `None` for one with
    /// a fraction, and for one with more than 1,000 digits.
    #[must_use]
    pub fn to_whole(&self) -> Option<String> {
        const MOST_DIGITS: i64 = 1_000;
        let Decimal { negative, digits, power } = self.decimal()?;
        let zeros = usize::try_from(power - i64::try_from(digits.len()).ok()?).ok();
        match zeros {
            _ if digits.is_empty() => Some("0".into()),
            Some(zeros) if power <= MOST_DIGITS => {
                Some(format!("{}{digits}{}", if negative { "-" } else { "" }, "0".repeat(zeros)))
            }
            _ => None,
        }
    }

    /// The number that a float is. `None` for those that are none.
    #[must_use]
    pub fn from_f64(float: f64) -> Option<Self> {
        float.is_finite().then(|| Self(format_smolstr!("{float:?}")))
    }

    /// The number that the lexer is at.
    pub(super) fn lex(lexer: &mut SliceLexer<'_>) -> Result<Self, NumberError> {
        let (text, parts) = lexer.num_string().validated().map_err(|_| NumberError::Form)?;
        if parts.exp && Decimal::parse(text).is_none() {
            return Err(NumberError::Exponent);
        }
        Ok(Self(text.into()))
    }

    pub(super) fn decimal(&self) -> Option<Decimal> {
        Decimal::parse(&self.0)
    }
}

impl FromStr for Number {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Self, NumberError> {
        let mut lexer = SliceLexer::new(text.as_bytes());
        let number = Self::lex(&mut lexer)?;
        if lexer.as_slice().is_empty() { Ok(number) } else { Err(NumberError::Form) }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || self.decimal() == other.decimal()
    }
}

impl Eq for Number {}

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

macro_rules! from_whole {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Number {
            fn from(number: $kind) -> Self {
                Self(format_smolstr!("{number}"))
            }
        }
    )*};
}

from_whole!(i32, u32, i64, u64, i128, u128, usize);

/// What a written number is worth: `0.DIGITS` times ten to the `power`.
///
/// Equal numbers have equal ones, and their order is that of their numbers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    /// Without zeros at either end; nothing for zero.
    digits: SmolStr,
    power: i64,
}

impl Decimal {
    /// The number that a text is: digits, with a sign, a point and an exponent or without.
    pub(super) fn parse(text: &str) -> Option<Self> {
        /// Beyond them, powers would not fit into 64 bits.
        const MAX_EXPONENT: i64 = 1_000_000_000_000;
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !are_digits(whole) || !are_digits(fraction) {
            return None;
        }
        let exponent: i64 = exponent.parse().ok()?;
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let mut power = i64::try_from(whole.len()).ok()? + exponent;
        let digits = if fraction.is_empty() {
            whole.trim_end_matches('0').into()
        } else if whole.is_empty() {
            let digits = fraction.trim_start_matches('0');
            power -= i64::try_from(fraction.len() - digits.len()).ok()?;
            digits.into()
        } else {
            format_smolstr!("{whole}{fraction}")
        };
        if digits.is_empty() {
            return Some(Self { negative: false, digits, power: 0 });
        }
        (exponent.abs() <= MAX_EXPONENT).then(|| Self { negative: text.starts_with('-'), digits, power })
    }

    /// What a float is worth: a whole one exactly, another one as it is written, so that 0.1 is 0.1. `None` for those
    /// that are no numbers.
    pub(super) fn of_float(float: f64) -> Option<Self> {
        if float.fract() == 0.0 {
            Self::parse(&format_smolstr!("{float:.0}"))
        } else {
            Self::parse(&format_smolstr!("{float:e}"))
        }
    }

    pub(super) fn of_whole(whole: i64) -> Option<Self> {
        Self::parse(&format_smolstr!("{whole}"))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| {
            if number.digits.is_empty() {
                0
            } else if number.negative {
                -1
            } else {
                1
            }
        };
        sign(self).cmp(&sign(other)).then_with(|| {
            // Without zeros at its end, a text of digits is less than its continuations.
            let order = self.power.cmp(&other.power).then_with(|| self.digits.cmp(&other.digits));
            if self.negative { order.reverse() } else { order }
        })
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_number_is_written_as_it_was_read() {
        for text in [
            "123456789012345678901234567890.10",
            "0.1000000000000000055511151231257827",
            "1E2",
            "-0",
            "1e-400",
        ] {
            assert_eq!(number(text).to_string(), text);
        }
        for text in ["", "-", "007", "+1", "1.", ".5", "1e", "0x1", "nan", "1 ", "1_0"] {
            assert_eq!(text.parse::<Number>(), Err(NumberError::Form), "{text}");
        }
        for text in ["1e9223372036854775808", "1E-99999999999999"] {
            assert_eq!(text.parse::<Number>(), Err(NumberError::Exponent), "{text}");
        }
    }

    #[test]
    fn equal_numbers_can_be_written_in_many_ways() {
        for (left, right) in
            [("1E2", "100"), ("1.10", "1.1"), ("-0.0", "0e9"), ("0.001e3", "1"), ("12e-1", "1.2")]
        {
            assert_eq!(number(left), number(right));
        }
        let large = "123456789012345678901234567890";
        assert_ne!(number(large), number(&format!("{large}.1")));
        assert_ne!(number("1"), number("-1"));
    }

    #[test]
    fn the_order_is_exact() {
        let ascending = [
            "-1e400",
            "-12",
            "-1.5",
            "-1.25",
            "-1e-400",
            "0",
            "1e-400",
            "0.1",
            "0.1000000000000000055511151231257827",
            "1",
            "1.5",
            "9",
            "10",
            "18446744073709551616",
            "18446744073709551617",
            "1e400",
            "1.1e400",
        ];
        let decimals = ascending.map(|text| Decimal::parse(text).unwrap());
        assert!(decimals.is_sorted_by(|left, right| left < right));
    }

    #[test]
    fn a_float_is_given_only_where_it_has_the_same_digits() {
        for (text, float) in [("1.50", 1.5), ("0.1", 0.1), ("1E2", 100.0), ("1e300", 1e300), ("0", 0.0)] {
            assert_eq!(number(text).as_f64(), Some(float), "{text}");
        }
        for text in [
            "123456789012345678901234567890.10",
            "0.1000000000000000055511151231257827",
            "9007199254740993",
            "1e400",
        ] {
            assert_eq!(number(text).as_f64(), None, "{text}");
        }
    }

    #[test]
    fn the_digits_of_a_whole_number() {
        for (text, whole) in [("1E2", "100"), ("-1.50e2", "-150"), ("-0.0", "0"), ("7", "7")] {
            assert_eq!(number(text).to_whole().as_deref(), Some(whole), "{text}");
        }
        assert_eq!(number("1.5").to_whole(), None);
        assert_eq!(number("1e1000000").to_whole(), None);
    }
}
