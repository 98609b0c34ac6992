//! The arguments of a measurement.
//!
//! What must hold: an argument that is not understood is never ignored, since the figures would then be of something else
//! than what was asked for. A usage error goes to stderr and exits with 2.

use std::ffi::OsString;
use std::path::PathBuf;

/// What was given on the command line.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    usage: &'static str,
    values: Vec<(String, OsString)>,
    switches: Vec<String>,
}

impl Arguments {
    /// Of this process; exits with 2 if they do not fit the usage. `valued` flags take a value, `switches` take none.
    #[must_use]
    pub fn of_process(usage: &'static str, valued: &[&str], switches: &[&str]) -> Self {
        match Self::parse(std::env::args_os().skip(1), valued, switches) {
            Ok(arguments) => Self { usage, ..arguments },
            Err(error) => usage_error(usage, &error),
        }
    }

    /// The same from any arguments.
    ///
    /// # Errors
    /// A sentence on the first argument that does not fit.
    pub fn parse(
        arguments: impl IntoIterator<Item = OsString>,
        valued: &[&str],
        switches: &[&str],
    ) -> Result<Self, String> {
        let mut found = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let flag = argument.to_str().unwrap_or_default().to_owned();
            if found.values.iter().any(|(name, _)| *name == flag) || found.switches.contains(&flag) {
                return Err(format!("{flag} is given twice"));
            }
            if switches.contains(&flag.as_str()) {
                found.switches.push(flag);
            } else if valued.contains(&flag.as_str()) {
                let value = arguments.next().ok_or_else(|| format!("{flag} needs a value"))?;
                found.values.push((flag, value));
            } else {
                return Err(format!("{} is not known", argument.to_string_lossy()));
            }
        }
        Ok(found)
    }

    /// The number behind a flag; exits with 2 if it is none, or smaller than `min`.
    #[must_use]
    pub fn number(&self, name: &str, default: u32, min: u32) -> u32 {
        self.try_number(name, default, min).unwrap_or_else(|error| usage_error(self.usage, &error))
    }

    /// The same without leaving the process.
    ///
    /// # Errors
    /// A sentence on what is wrong with the value.
    pub fn try_number(&self, name: &str, default: u32, min: u32) -> Result<u32, String> {
        let Some(value) = self.value(name) else { return Ok(default) };
        number(name, &value.to_string_lossy(), min)
    }

    /// The numbers behind a flag, with commas between them; exits with 2 if one is none, or smaller than `min`.
    #[must_use]
    pub fn numbers(&self, name: &str, default: u32, min: u32) -> Vec<u32> {
        self.try_numbers(name, default, min).unwrap_or_else(|error| usage_error(self.usage, &error))
    }

    /// The same without leaving the process.
    ///
    /// # Errors
    /// A sentence on the first that is wrong.
    pub fn try_numbers(&self, name: &str, default: u32, min: u32) -> Result<Vec<u32>, String> {
        let Some(value) = self.value(name) else { return Ok(vec![default]) };
        value.to_string_lossy().split(',').map(|text| number(name, text, min)).collect()
    }

    /// The path behind a flag.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    /// Whether a switch is there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.switches.iter().any(|switch| switch == name)
    }

    fn value(&self, name: &str) -> Option<&OsString> {
        self.values.iter().find(|(flag, _)| flag == name).map(|(_, value)| value)
    }
}

fn number(name: &str, text: &str, min: u32) -> Result<u32, String> {
    let number: u32 = text.parse().map_err(|error| format!("{name} {text}: {error}"))?;
    if number < min {
        return Err(format!("{name} {text}: at least {min}"));
    }
    Ok(number)
}

/// Says what is wrong and what would be right, and exits with 2.
#[expect(clippy::print_stderr, reason = "stdout is for figures")]
pub fn usage_error(usage: &str, error: &str) -> ! {
    eprintln!("{error}\nusage: {usage}");
    std::process::exit(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(OsString::from), &["--records", "--dir"], &["--json"])
    }

    #[test]
    fn what_is_given_is_found_and_what_is_not_has_its_default() {
        let given = parse("--json --records 12 --dir some/where").unwrap();
        assert!(given.has("--json"));
        assert_eq!(given.try_number("--records", 5, 1), Ok(12));
        assert_eq!(given.path("--dir"), Some(PathBuf::from("some/where")));
        let nothing = parse("").unwrap();
        assert!(!nothing.has("--json"));
        assert_eq!(nothing.try_number("--records", 5, 1), Ok(5));
        assert_eq!(nothing.path("--dir"), None);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let error = |line| parse(line).unwrap_err();
        assert_eq!(error("--rekords 12"), "--rekords is not known");
        assert_eq!(error("12"), "12 is not known");
        assert_eq!(error("--json --records"), "--records needs a value");
        assert_eq!(error("--records 1 --records 2"), "--records is given twice");
        assert_eq!(error("--json --json"), "--json is given twice");
        let number = |line| parse(line).unwrap().try_number("--records", 5, 3);
        assert_eq!(number("--records 2"), Err("--records 2: at least 3".to_owned()));
        assert_eq!(number("--records 3"), Ok(3));
        assert!(number("--records many").is_err());
        assert!(number("--records -1").is_err());
        let numbers = |line| parse(line).unwrap().try_numbers("--records", 5, 3);
        assert_eq!(numbers("--records 7,3,12"), Ok(vec![7, 3, 12]));
        assert_eq!(numbers(""), Ok(vec![5]));
        assert_eq!(numbers("--records 7,2"), Err("--records 2: at least 3".to_owned()));
        assert!(numbers("--records 7,,9").is_err());
    }
}
