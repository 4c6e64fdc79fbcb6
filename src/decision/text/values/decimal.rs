//! A number as its digits: exact, however many they are.

/// The digits, the last `scale` of them behind the mark, divided by `divisor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decimal {
    digits: String,
    scale: usize,
    divisor: u128,
}

impl Decimal {
    /// At least one digit; `scale` is at most their number.
    pub(super) fn new(digits: String, scale: usize) -> Self {
        Self { digits, scale, divisor: 1 }
    }

    /// Times ten, so many times.
    pub(super) fn shift(&mut self, zeros: usize) {
        let behind = self.scale.min(zeros);
        self.scale -= behind;
        self.digits.extend(std::iter::repeat_n('0', zeros - behind));
    }

    /// By something above 0.
    pub(super) fn divide(&mut self, divisor: u16) {
        self.divisor *= u128::from(divisor);
    }

    /// One text for one number: a decimal where there is a finite one, else a fraction in lowest terms.
    pub(super) fn canonical(mut self) -> String {
        if self.divisor > 1 {
            self.reduce();
        }
        let Self { mut digits, mut scale, divisor } = self;
        while digits.len() <= scale {
            digits.insert(0, '0');
        }
        let zeros = digits.bytes().take(digits.len() - scale - 1).take_while(|digit| *digit == b'0').count();
        digits.drain(..zeros);
        while scale > 0 && digits.ends_with('0') {
            digits.pop();
            scale -= 1;
        }
        if scale > 0 {
            digits.insert(digits.len() - scale, '.');
        }
        if divisor > 1 { format!("{digits}/{divisor}") } else { digits }
    }

    /// A number too long for that stays as it is: another spelling of it is then another number.
    fn reduce(&mut self) {
        let Some(mut number) = self.digits.parse::<u128>().ok().filter(|_| self.digits.len() <= REDUCED_DIGITS) else {
            return;
        };
        let common = gcd(number % self.divisor, self.divisor);
        number /= common;
        self.divisor /= common;
        for (factor, other) in [(2, 5), (5, 2)] {
            while self.divisor.is_multiple_of(factor) {
                self.divisor /= factor;
                number *= other;
                self.scale += 1;
            }
        }
        self.digits = number.to_string();
    }
}

/// The greatest divisor of both.
fn gcd(a: u128, b: u128) -> u128 {
    if a == 0 { b } else { gcd(b % a, a) }
}

/// Times the powers of 2 or 5 in a divisor of three digits such a number is still a `u128`.
const REDUCED_DIGITS: usize = 28;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(digits: &str, scale: usize, zeros: usize, divisor: u16) -> String {
        let mut number = Decimal::new(digits.to_owned(), scale);
        number.shift(zeros);
        number.divide(divisor);
        number.canonical()
    }

    #[test]
    fn canonical_forms() {
        fn check(digits: &str, scale: usize, zeros: usize, divisor: u16, expected: &str) {
            assert_eq!(number(digits, scale, zeros, divisor), expected, "{digits} {scale} {zeros} / {divisor}");
        }
        check("0012", 0, 0, 1, "12");
        check("100050", 2, 0, 1, "1000.5");
        check("5", 1, 0, 1, "0.5");
        check("000", 2, 0, 1, "0");
        check("35", 1, 6, 1, "3500000");
        check("35", 1, 1, 1, "35");
        check("1234567891", 9, 3, 1, "1234.567891");
        check("9007199254740993", 0, 0, 1, "9007199254740993");
        check("3", 0, 0, 4, "0.75");
        check("1", 0, 0, 512, "0.001953125");
        check("2", 0, 0, 6, "1/3");
        check("1", 0, 0, 12, "0.25/3");
        check("0", 0, 0, 7, "0");
        check("10", 1, 0, 3, "1/3");
        check(&"9".repeat(40), 0, 0, 3, &format!("{}/3", "9".repeat(40)));
    }

    proptest! {
        #[test]
        fn equal_forms_are_equal_numbers(
            a in 0u32..2000, b in 0u32..2000, x in 0usize..4, y in 0usize..4, i in 1u16..50, j in 1u16..50,
        ) {
            let form = |n: u32, scale: usize, divisor| number(&format!("{n:04}"), scale, 0, divisor);
            let sides = [(a, x, i, y, j), (b, y, j, x, i)];
            let [left, right] = sides.map(|(n, _, _, scale, divisor)| u128::from(n) * 10u128.pow(scale as u32) * u128::from(divisor));
            prop_assert_eq!(form(a, x, i) == form(b, y, j), left == right);
        }
    }
}
