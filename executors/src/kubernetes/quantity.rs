//! Amounts as a cluster writes them: `4`, `3920m`, `65Gi`, `1e3`, `0.5`. Pure.
//!
//! They are counted in thousandths of their unit, rounded up, so that nothing that was asked for is forgotten. As a cluster does it, one that is
//! too large is the largest that there is: it would be no amount at all else.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Amounts by name of the resource, in thousandths of its unit.
pub(super) type Amounts = BTreeMap<String, u128>;

/// The largest amount of a cluster, in thousandths.
const MOST: u128 = i64::MAX.cast_unsigned() as u128 * 1_000;

/// A quantity in thousandths of its unit; `None` where it is not one, or below zero.
pub fn thousandths(quantity: &Quantity) -> Option<u128> {
    let text = quantity.0.trim();
    let text = text.strip_prefix('+').unwrap_or(text);
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    // These are digits: what does not fit is too large.
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().unwrap_or(u128::MAX) };
    // Nine places are more than any cluster says.
    let part: u128 = format!("{part:0<9.9}").parse().ok()?;
    let billionths = whole.saturating_mul(1_000_000_000).saturating_add(part);
    let (factor, divisor) = scale(suffix)?;
    Some(billionths.saturating_mul(factor).div_ceil(divisor.saturating_mul(1_000_000)).min(MOST))
}

/// What a suffix multiplies by and divides by.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    let place = |list: [&str; 6]| list.iter().position(|known| *known == suffix).and_then(|at| u32::try_from(at + 1).ok());
    match suffix {
        "" => return Some((1, 1)),
        "n" => return Some((1, 1_000_000_000)),
        "u" => return Some((1, 1_000_000)),
        "m" => return Some((1, 1_000)),
        _ => {}
    }
    if let Some(power) = place(["k", "M", "G", "T", "P", "E"]) {
        return Some((1_000_u128.pow(power), 1));
    }
    if let Some(power) = place(["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]) {
        return Some((1_024_u128.pow(power), 1));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let (is_below, digits) = match exponent.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, exponent.strip_prefix('+').unwrap_or(exponent)),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let power = 10_u128.saturating_pow(digits.parse().unwrap_or(u32::MAX));
    Some(if is_below { (1, power) } else { (power, 1) })
}

/// The readable ones of a list.
pub(super) fn amounts(list: &BTreeMap<String, Quantity>) -> Amounts {
    list.iter().filter_map(|(key, quantity)| Some((key.clone(), thousandths(quantity)?))).collect()
}

/// Adds each of `more`.
pub(super) fn add(sum: &mut Amounts, more: &Amounts) {
    for (key, amount) in more {
        let have = sum.entry(key.clone()).or_default();
        *have = have.saturating_add(*amount);
    }
}

/// As people write it: whole units where it is some, else thousandths.
pub(super) fn shown(amount: u128) -> String {
    if amount.is_multiple_of(1_000) { (amount / 1_000).to_string() } else { format!("{amount}m") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_a_cluster_writes_them() {
        let read = |text: &str| thousandths(&Quantity(text.to_owned()));
        assert_eq!((read("4"), read("3920m"), read("0.5"), read(".5")), (Some(4_000), Some(3_920), Some(500), Some(500)));
        assert_eq!(read("100u"), Some(1), "a little is not nothing");
        assert_eq!(read("65Gi"), Some(65 * 1_024 * 1_024 * 1_024 * 1_000));
        assert_eq!(
            (read("1e3"), read("2k"), read("1.5Ki"), read("5E-1")),
            (Some(1_000_000), Some(2_000_000), Some(1_536_000), Some(500))
        );
        assert_eq!((read("many"), read("4Xi"), read("-1"), read(""), read(".")), (None, None, None, None, None));
        assert_eq!(
            (read("+4"), read("1e+3"), read("1e"), read("1e1.5"), read("--1")),
            (Some(4_000), Some(1_000_000), None, None, None)
        );
        assert_eq!((shown(2_000), shown(1_500)), ("2".to_owned(), "1500m".to_owned()));
    }

    #[test]
    fn what_is_too_large_or_too_small_is_not_nothing() {
        let read = |text: &str| thousandths(&Quantity(text.to_owned()));
        for large in ["1e30", "1e99", "1e99999999999", "9999999Ei", "99999999999999999999999999999999999999999999"] {
            assert_eq!(read(large), Some(MOST), "{large}");
        }
        assert_eq!(read("16Ei"), Some(MOST), "as the cluster caps it");
        for small in ["0.0000001", "1n", "1e-30", "1e-99"] {
            assert_eq!(read(small), Some(1), "{small}");
        }
        assert_eq!((read("0e99"), read("0"), read("0Ei")), (Some(0), Some(0), Some(0)));
    }
}
