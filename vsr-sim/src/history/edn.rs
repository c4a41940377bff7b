//! As much of the extensible data notation as recorded histories use.

use std::fmt::{self, Debug, Formatter};

/// A value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Edn {
    Nil,
    Integer(i64),
    Text(String),
    /// Without its colon.
    Keyword(String),
    /// Whatever else stands on its own, as it was written: symbols, booleans, characters, other numbers.
    Other(String),
    /// A vector or a list.
    Sequence(Vec<Edn>),
    Set(Vec<Edn>),
    /// Its entries as they were written.
    Map(Vec<(Edn, Edn)>),
}

impl Edn {
    /// What a map holds under a keyword; of several entries the first. Nothing if it holds `nil` there.
    pub(super) fn get(&self, keyword: &str) -> Option<&Edn> {
        let Edn::Map(entries) = self else { return None };
        let entry = entries.iter().find(|(key, _)| matches!(key, Edn::Keyword(name) if name == keyword));
        entry.map(|(_, value)| value).filter(|value| **value != Edn::Nil)
    }
}

impl Debug for Edn {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        fn all(f: &mut Formatter<'_>, open: &str, values: &[Edn], close: &str) -> fmt::Result {
            f.write_str(open)?;
            for (index, value) in values.iter().enumerate() {
                let space = if index == 0 { "" } else { " " };
                write!(f, "{space}{value:?}")?;
            }
            f.write_str(close)
        }
        match self {
            Edn::Nil => f.write_str("nil"),
            Edn::Integer(integer) => write!(f, "{integer}"),
            Edn::Text(text) => write!(f, "{text:?}"),
            Edn::Keyword(name) => write!(f, ":{name}"),
            Edn::Other(text) => f.write_str(text),
            Edn::Sequence(values) => all(f, "[", values, "]"),
            Edn::Set(values) => all(f, "#{", values, "}"),
            Edn::Map(entries) => {
                let flat: Vec<_> = entries.iter().flat_map(|(key, value)| [key.clone(), value.clone()]).collect();
                all(f, "{", &flat, "}")
            }
        }
    }
}

/// What is wrong with a text, and in which line, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) message: String,
}

/// Values within each other. More is damage, and would exhaust the stack.
const DEPTH_MAX: usize = 100;

/// Reads values one after the other.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    /// A text whose first line has this number.
    pub(super) fn new(text: &'a str, line: usize) -> Reader<'a> {
        Reader { rest: text, line }
    }

    /// The line of what is read next, once [`Reader::peek`] was called.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T, SyntaxError> {
        Err(SyntaxError { line: self.line, message: message.into() })
    }

    fn skip(&mut self, bytes: usize) -> &'a str {
        let (skipped, rest) = self.rest.split_at(bytes);
        self.line += skipped.bytes().filter(|byte| *byte == b'\n').count();
        self.rest = rest;
        skipped
    }

    fn skip_while(&mut self, test: impl Fn(char) -> bool) -> &'a str {
        self.skip(self.rest.find(|character| !test(character)).unwrap_or(self.rest.len()))
    }

    /// The character that the next value begins with, or that ends a collection; none at the end.
    pub(super) fn peek(&mut self) -> Result<Option<char>, SyntaxError> {
        self.peek_at(0)
    }

    fn peek_at(&mut self, depth: usize) -> Result<Option<char>, SyntaxError> {
        loop {
            self.skip_while(|character| character.is_whitespace() || character == ',');
            if self.rest.starts_with(';') {
                self.skip_while(|character| character != '\n');
            } else if self.rest.starts_with("#_") {
                self.skip(2);
                self.value_at(depth + 1)?;
            } else {
                return Ok(self.rest.chars().next());
            }
        }
    }

    /// Goes past one character, which [`Reader::peek`] found.
    pub(super) fn bump(&mut self) {
        self.skip(self.rest.chars().next().map_or(0, char::len_utf8));
    }

    /// The next value.
    pub(super) fn value(&mut self) -> Result<Edn, SyntaxError> {
        self.value_at(0)
    }

    fn value_at(&mut self, depth: usize) -> Result<Edn, SyntaxError> {
        if depth > DEPTH_MAX {
            return self.fail(format!("more than {DEPTH_MAX} values within each other"));
        }
        let first = self.peek_at(depth)?;
        match first {
            None => self.fail("the text ends where a value should be"),
            Some('"') => self.text().map(Edn::Text),
            Some('[') => self.collection(1, ']', depth).map(Edn::Sequence),
            Some('(') => self.collection(1, ')', depth).map(Edn::Sequence),
            Some('{') => self.map(depth),
            Some(')' | ']' | '}') => self.fail(format!("{:?} closes nothing", first.unwrap_or_default())),
            Some('#') if self.rest.starts_with("#{") => self.collection(2, '}', depth).map(Edn::Set),
            // A tag says of what kind the next value is, and metadata is about it: the value will do.
            Some('#' | '^') if !self.rest.starts_with("##") => {
                self.skip(1);
                self.value_at(depth + 1)?;
                self.value_at(depth + 1)
            }
            Some('\\') => {
                let end = self.rest.char_indices().nth(2).map_or(self.rest.len(), |(at, _)| at);
                let character = self.skip(end);
                Ok(Edn::Other([character, self.skip_while(is_part)].concat()))
            }
            Some(_) => self.word(),
        }
    }

    fn word(&mut self) -> Result<Edn, SyntaxError> {
        let word = self.skip_while(is_part);
        if let Some(name) = word.strip_prefix(':') {
            return if name.is_empty() {
                self.fail("a colon without a name")
            } else {
                Ok(Edn::Keyword(name.to_owned()))
            };
        }
        let digits = word.strip_suffix('N').unwrap_or(word);
        match (word, digits.parse()) {
            ("nil", _) => Ok(Edn::Nil),
            ("", _) => self.fail(format!("{:?} begins no value", self.rest.chars().next().unwrap_or_default())),
            (_, Ok(integer)) => Ok(Edn::Integer(integer)),
            _ => Ok(Edn::Other(word.to_owned())),
        }
    }

    fn collection(&mut self, opening: usize, close: char, depth: usize) -> Result<Vec<Edn>, SyntaxError> {
        let opened = self.line;
        self.skip(opening);
        let mut values = Vec::new();
        loop {
            match self.peek_at(depth)? {
                Some(character) if character == close => {
                    self.skip(1);
                    return Ok(values);
                }
                None => return self.fail(format!("the text ends before the {close:?} of what line {opened} opens")),
                Some(_) => values.push(self.value_at(depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Edn, SyntaxError> {
        let mut values = self.collection(1, '}', depth)?.into_iter();
        let mut entries = Vec::new();
        while let Some(key) = values.next() {
            match values.next() {
                Some(value) => entries.push((key, value)),
                None => return self.fail(format!("{key:?} has no value in its map")),
            }
        }
        Ok(Edn::Map(entries))
    }

    fn text(&mut self) -> Result<String, SyntaxError> {
        let opened = self.line;
        self.skip(1);
        let mut text = String::new();
        loop {
            text.push_str(self.skip_while(|character| character != '"' && character != '\\'));
            let quote = self.rest.starts_with('"');
            self.bump();
            if quote {
                return Ok(text);
            }
            let Some(escape) = self.rest.chars().next() else {
                return self.fail(format!("the text ends within the string of line {opened}"));
            };
            self.bump();
            text.push(match escape {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'b' => '\u{8}',
                'f' => '\u{c}',
                '"' | '\\' => escape,
                'u' => {
                    let digits = self.rest.get(..4).unwrap_or_default();
                    let Some(character) = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32) else {
                        return self.fail("\\u without the four digits of a character");
                    };
                    self.skip(4);
                    character
                }
                _ => return self.fail(format!("{escape:?} after a backslash")),
            });
        }
    }
}

/// What a word consists of.
fn is_part(character: char) -> bool {
    !character.is_whitespace() && !"\",;()[]{}\\^".contains(character)
}
