//! A hand-written JSON parser by RFC 8259: the members of the outermost object, the grammar of everything.
//!
//! Not serde_json: the worker uses it, and it hides duplicate names and refuses numbers that are grammatical.

/// The members of an object, in order; names as bytes, because an escaped lone surrogate isn't UTF-8.
pub type Object = Vec<(Vec<u8>, Shape)>;

/// A value, as far as a reading needs it.
#[derive(Debug, PartialEq)]
pub enum Shape {
    /// `null`
    Null,
    /// `true` or `false`
    Boolean,
    /// The nearest double, which may be infinite.
    Number(f64),
    /// Unescaped.
    String(Vec<u8>),
    /// Only the grammar is checked.
    Array,
    /// Empty if it is within the outermost object: then only the grammar is checked.
    Object(Object),
}

/// Returns the value of `text`, if it is one JSON document.
pub fn parse(text: &str) -> Option<Shape> {
    let mut cursor = Cursor { rest: text.as_bytes() };
    cursor.space();
    let shape = if cursor.peek() == Some(b'{') { cursor.object()? } else { cursor.value()? };
    cursor.space();
    cursor.rest.is_empty().then_some(shape)
}

struct Cursor<'t> {
    rest: &'t [u8],
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.rest = &self.rest[1..];
        }
    }

    fn object(&mut self) -> Option<Shape> {
        self.take(b'{').then_some(())?;
        self.space();
        let mut members = Object::new();
        if self.take(b'}') {
            return Some(Shape::Object(members));
        }
        loop {
            let name = self.name()?;
            self.space();
            members.push((name, self.value()?));
            self.space();
            match self.next()? {
                b',' => {}
                b'}' => return Some(Shape::Object(members)),
                _ => return None,
            }
        }
    }

    /// A member's name and its colon.
    fn name(&mut self) -> Option<Vec<u8>> {
        self.space();
        let name = self.string()?;
        self.space();
        self.take(b':').then_some(name)
    }

    /// A value; of arrays and objects only the grammar. Not recursive: a megabyte of `[` is a legitimate input.
    fn value(&mut self) -> Option<Shape> {
        let shape = match self.peek()? {
            b'[' => Shape::Array,
            b'{' => Shape::Object(Object::new()),
            _ => return self.scalar(),
        };
        let mut open = Vec::new();
        loop {
            self.space();
            if self.take(b'[') {
                self.space();
                if !self.take(b']') {
                    open.push(b']');
                    continue;
                }
            } else if self.take(b'{') {
                self.space();
                if !self.take(b'}') {
                    self.name()?;
                    open.push(b'}');
                    continue;
                }
            } else {
                self.scalar()?;
            }
            // A value has ended, and perhaps its container.
            loop {
                let Some(close) = open.last() else {
                    return Some(shape);
                };
                let in_object = *close == b'}';
                self.space();
                match self.next()? {
                    b',' if in_object => {
                        self.name()?;
                        break;
                    }
                    b',' => break,
                    end if end == *close => drop(open.pop()),
                    _ => return None,
                }
            }
        }
    }

    fn scalar(&mut self) -> Option<Shape> {
        for (word, shape) in [("null", Shape::Null), ("true", Shape::Boolean), ("false", Shape::Boolean)] {
            if let Some(rest) = self.rest.strip_prefix(word.as_bytes()) {
                self.rest = rest;
                return Some(shape);
            }
        }
        if self.peek() == Some(b'"') {
            self.string().map(Shape::String)
        } else {
            self.number().map(Shape::Number)
        }
    }

    fn number(&mut self) -> Option<f64> {
        let start = self.rest;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        let text = &start[..start.len() - self.rest.len()];
        std::str::from_utf8(text).ok()?.parse().ok()
    }

    fn digits(&mut self) -> Option<()> {
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.rest = &self.rest[count..];
        (count > 0).then_some(())
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        self.take(b'"').then_some(())?;
        let mut bytes = Vec::new();
        loop {
            match self.next()? {
                b'"' => return Some(bytes),
                b'\\' => self.escape(&mut bytes)?,
                0..0x20 => return None,
                byte => bytes.push(byte),
            }
        }
    }

    fn escape(&mut self, bytes: &mut Vec<u8>) -> Option<()> {
        let byte = match self.next()? {
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let first = self.hex()?;
                let code = self.low_surrogate(first).unwrap_or(first);
                match char::from_u32(code) {
                    Some(char) => bytes.extend(char.encode_utf8(&mut [0; 4]).bytes()),
                    // A lone surrogate: grammatical, but equal to no text.
                    None => bytes.extend([0xff, (code >> 8) as u8, code as u8]),
                }
                return Some(());
            }
            _ => return None,
        };
        bytes.push(byte);
        Some(())
    }

    /// The character of `high` and the escape that follows it, if they form one.
    fn low_surrogate(&mut self, high: u32) -> Option<u32> {
        let mut ahead = Cursor { rest: self.rest.strip_prefix(b"\\u")? };
        let low = ahead.hex()?;
        if !(0xd800..0xdc00).contains(&high) || !(0xdc00..0xe000).contains(&low) {
            return None;
        }
        self.rest = ahead.rest;
        Some(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))
    }

    fn hex(&mut self) -> Option<u32> {
        (0..4).try_fold(0, |code, _| Some(code * 16 + char::from(self.next()?).to_digit(16)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oracle_reads_json_as_the_standard_has_it() {
        for good in [
            "0",
            "-0.5e+3",
            "[[],{}]",
            r#"{"a":[1,{"b":null}],"c":"\ud83d\ude00\ud800"}"#,
            " \"\u{7f}\" ",
            "1e999",
        ] {
            assert!(parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "01",
            "1.",
            ".5",
            "+1",
            "NaN",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "[1 2]",
            "\"\n\"",
            "\"\\x\"",
            "[}",
            "{}{}",
            "nul",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
        let deep = "[".repeat(500_000) + &"]".repeat(500_000);
        assert_eq!(parse(&deep), Some(Shape::Array));
        let Some(Shape::Object(members)) = parse(r#"{"f\u0075el":1,"fuel":2}"#) else { panic!("an object") };
        assert_eq!(members, [(b"fuel".to_vec(), Shape::Number(1.0)), (b"fuel".to_vec(), Shape::Number(2.0))]);
    }
}
