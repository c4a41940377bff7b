//! What options hold, and how scenario files and the command line write it.

use std::time::Duration;

use vsr::protocol::Random;

use crate::faults::Nanos;

/// A chance, in parts per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ppm(pub u32);

impl Ppm {
    /// Draws whether it happens this time. A chance of 0 draws nothing.
    pub fn happens(self, random: &mut Random) -> bool {
        self.0 > 0 && random.below(1_000_000) < u64::from(self.0)
    }
}

/// How the delays of messages are spread between the shortest and the longest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DelayShape {
    /// Mostly short, with a long tail.
    #[default]
    LongTail,
    /// Each delay is as likely as every other.
    Uniform,
    /// Short or long, and nothing between.
    Bimodal,
}

/// Something that an option holds, as a text.
pub(super) trait Value {
    fn show(&self) -> String;
    fn parse(&mut self, text: &str) -> Result<(), String>;
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn show(&self) -> String {
                self.to_string()
            }
            fn parse(&mut self, text: &str) -> Result<(), String> {
                *self = text.parse().map_err(|error: <$type as std::str::FromStr>::Err| error.to_string())?;
                Ok(())
            }
        }
    )*};
}
numbers!(u64, u32, usize, bool);

impl Value for Ppm {
    fn show(&self) -> String {
        format!("{}ppm", self.0)
    }
    fn parse(&mut self, text: &str) -> Result<(), String> {
        let number = text.strip_suffix("ppm").unwrap_or(text);
        self.0 = number.parse().map_err(|_| "a rate is a number of ppm, as in 500ppm".to_owned())?;
        Ok(())
    }
}

impl Value for DelayShape {
    fn show(&self) -> String {
        match self {
            DelayShape::LongTail => "long-tail",
            DelayShape::Uniform => "uniform",
            DelayShape::Bimodal => "bimodal",
        }
        .to_owned()
    }
    fn parse(&mut self, text: &str) -> Result<(), String> {
        let shapes = [DelayShape::LongTail, DelayShape::Uniform, DelayShape::Bimodal];
        *self =
            shapes.into_iter().find(|shape| shape.show() == text).ok_or("a shape is long-tail, uniform or bimodal")?;
        Ok(())
    }
}

impl Value for Duration {
    fn show(&self) -> String {
        Nanos(self.as_nanos() as u64).to_string()
    }
    fn parse(&mut self, text: &str) -> Result<(), String> {
        *self = parse_duration(text)?;
        Ok(())
    }
}

/// A time as scenario files write it: `1s`, `1.5ms`, `20us`, `7ns`.
///
/// # Errors
/// It is none.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let units = [
        ("ns", 1_u64),
        ("us", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("min", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let wrong = || format!("{text} is not a time: write 1s, 1.5ms, 20us or 7ns");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let (_, nanos) = units.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut total = whole.parse::<u64>().map_err(|_| wrong())?.checked_mul(nanos).ok_or_else(wrong)?;
    let mut part = nanos;
    for digit in fraction.chars() {
        part /= 10;
        total = total.checked_add(u64::from(digit.to_digit(10).ok_or_else(wrong)?) * part).ok_or_else(wrong)?;
    }
    // A longer one would keep the simulator busy without end.
    if total > 100 * 3_600_000_000_000 {
        return Err(format!("{text} is too long: 100h are enough"));
    }
    Ok(Duration::from_nanos(total))
}
