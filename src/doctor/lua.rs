//! A small reader of Lua: which functions of tenantauth a text calls, with options as far as they are literals.
//!
//! It follows no values. What it does not understand (a table that is put together elsewhere, a module of the user's
//! own) counts as unknown, and is not complained about.

use std::collections::HashMap;

/// Tables in tables.
const MAX_DEPTH: u32 = 16;

/// A value in a table of options.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// `nil`.
    Nil,
    /// A table: its entries, those without a name under none.
    Table(Vec<Entry>),
    /// Something that is worked out elsewhere.
    Unknown,
}

/// An entry of a table, with its line.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its name; `None` of a list's entry, and of one whose name is worked out.
    pub name: Option<String>,
    /// Its value.
    pub value: Value,
    /// Lines since the text's first.
    pub line: u32,
}

/// A call of a function of the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The function's name.
    pub function: String,
    /// What it is called with; `Nil` for nothing.
    pub options: Value,
    /// Lines since the text's first.
    pub line: u32,
}

/// What a text of Lua does, as far as this reader sees.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Code {
    /// The calls, in their order.
    pub calls: Vec<Call>,
    /// Whether it loads something else, which may call anything.
    pub loads_others: bool,
    /// Whether there is nothing but blanks and comments.
    pub is_empty: bool,
    /// Whether it branches: what stands in it is not always run.
    pub branches: bool,
    /// Whether it requires the module.
    pub requires_module: bool,
    /// Whether it sets where modules are found.
    pub sets_cpath: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Number(f64),
    Symbol(char),
}

/// The length of Lua code up to the brace that closes the block around it; `None` where none does.
pub fn skip_block(text: &str) -> Option<usize> {
    let mut lexer = Lexer { text, at: 0, line: 0 };
    let mut depth = 0_u32;
    loop {
        lexer.skip();
        let start = lexer.at;
        match lexer.token()? {
            Token::Symbol('{') => depth += 1,
            Token::Symbol('}') if depth == 0 => return Some(start),
            Token::Symbol('}') => depth -= 1,
            _ => {}
        }
    }
}

/// Reads a text of Lua.
pub fn read(text: &str) -> Code {
    let mut lexer = Lexer { text, at: 0, line: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip();
        let line = lexer.line;
        let Some(token) = lexer.token() else { break };
        tokens.push((token, line));
    }
    let mut reader = Reader { tokens: &tokens, at: 0, modules: HashMap::new(), code: Code::default() };
    reader.code.is_empty = tokens.is_empty();
    reader.all();
    reader.code
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    line: u32,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn advance(&mut self, length: usize) -> &'t str {
        let taken = self.rest().get(..length).unwrap_or(self.rest());
        self.at += taken.len();
        self.line += u32::try_from(taken.matches('\n').count()).unwrap_or_default();
        taken
    }

    /// Passes over blanks and comments.
    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let blanks = rest.len() - rest.trim_start().len();
            self.advance(blanks);
            let Some(comment) = self.rest().strip_prefix("--") else { return };
            let length = match long_bracket(comment) {
                Some((_, length)) => length + 2,
                None => self.rest().find('\n').unwrap_or(self.rest().len()),
            };
            self.advance(length);
        }
    }

    fn token(&mut self) -> Option<Token> {
        let rest = self.rest();
        let first = rest.chars().next()?;
        if let Some((text, length)) = long_bracket(rest) {
            self.advance(length);
            return Some(Token::Text(text.to_owned()));
        }
        if matches!(first, '"' | '\'') {
            return Some(Token::Text(self.quoted(first)));
        }
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        if first.is_ascii_digit() {
            let end = rest.find(|c: char| !is_word(c) && c != '.').unwrap_or(rest.len());
            let number = self.advance(end);
            return Some(Token::Number(number.parse().unwrap_or(f64::NAN)));
        }
        if is_word(first) {
            let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
            return Some(Token::Name(self.advance(end).to_owned()));
        }
        self.advance(first.len_utf8());
        Some(Token::Symbol(first))
    }

    fn quoted(&mut self, quote: char) -> String {
        self.advance(1);
        let mut text = String::new();
        while let Some(character) = self.rest().chars().next() {
            self.advance(character.len_utf8());
            if character == quote {
                break;
            }
            if character != '\\' {
                text.push(character);
                continue;
            }
            let Some(escaped) = self.rest().chars().next() else { break };
            self.advance(escaped.len_utf8());
            match escaped {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                // By number: no name or path is written so.
                '0'..='9' | 'x' => text.extend(['\\', escaped]),
                other => text.push(other),
            }
        }
        text
    }
}

/// The content of a long bracket at the start (`[[...]]`, `[=[...]=]`) and its whole length; one that does not end goes
/// to the end.
fn long_bracket(text: &str) -> Option<(&str, usize)> {
    let after = text.strip_prefix('[')?;
    let level = after.len() - after.trim_start_matches('=').len();
    let content = after.get(level..)?.strip_prefix('[')?;
    let close = format!("]{}]", "=".repeat(level));
    let end = content.find(&close);
    let inner = content.get(..end.unwrap_or(content.len()))?;
    let length = text.len() - content.len() + inner.len() + end.map_or(0, |_| close.len());
    Some((inner, length))
}

/// What a local name stands for.
#[derive(Clone, PartialEq)]
enum Bound {
    Module,
    Function(String),
}

struct Reader<'t> {
    tokens: &'t [(Token, u32)],
    at: usize,
    modules: HashMap<String, Bound>,
    code: Code,
}

impl Reader<'_> {
    fn peek(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead).map(|(token, _)| token)
    }

    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(0, |(_, line)| *line)
    }

    fn is_symbol(&self, ahead: usize, symbol: char) -> bool {
        self.peek(ahead) == Some(&Token::Symbol(symbol))
    }

    fn all(&mut self) {
        while let Some(token) = self.peek(0) {
            let Token::Name(name) = token else {
                self.at += 1;
                continue;
            };
            let name = name.clone();
            match &*name {
                "if" | "elseif" | "for" | "while" | "function" | "repeat" | "and" | "or" => {
                    self.code.branches = true
                }
                "dofile" | "loadfile" | "loadstring" | "load" => self.code.loads_others = true,
                "cpath" if self.is_symbol(1, '=') => self.code.sets_cpath = true,
                _ => {}
            }
            // `x.name` is another thing than a local `name`.
            let is_field =
                self.at > 0 && matches!(self.tokens.get(self.at - 1), Some((Token::Symbol('.' | ':'), _)));
            if let Some((local, length)) = self.assignment() {
                self.at += length;
                match self.module_expression() {
                    Some(bound) if !self.is_symbol(0, '(') && !self.is_symbol(0, '{') => {
                        self.modules.insert(local, bound);
                    }
                    Some(Bound::Function(function)) => self.call(function),
                    _ => {}
                }
                continue;
            }
            let line = self.line();
            match (!is_field).then(|| self.module_expression()).flatten() {
                Some(Bound::Function(function)) => self.call_at(function, line),
                Some(Bound::Module) => {}
                None => self.at += 1,
            }
        }
    }

    /// `name =` or `local name =` before something that is the module or its function; the tokens up to behind `=`.
    fn assignment(&self) -> Option<(String, usize)> {
        let from = usize::from(self.peek(0) == Some(&Token::Name("local".to_owned())));
        let Some(Token::Name(name)) = self.peek(from) else { return None };
        let is_plain = self.is_symbol(from + 1, '=') && !self.is_symbol(from + 2, '=');
        (is_plain && self.starts_module(from + 2)).then(|| (name.clone(), from + 2))
    }

    /// Whether the module, or a name that stands for it, comes at this distance.
    fn starts_module(&self, ahead: usize) -> bool {
        match self.peek(ahead) {
            Some(Token::Name(name)) if name == "require" => true,
            Some(Token::Name(name)) => self.modules.contains_key(name),
            _ => false,
        }
    }

    /// Passes over `require "tenantauth"`, a name that stands for it or for a function of it, and a function's name
    /// behind.
    fn module_expression(&mut self) -> Option<Bound> {
        let Some(Token::Name(name)) = self.peek(0) else { return None };
        let bound = if name == "require" {
            let (text, length) = match (self.peek(1), self.peek(2), self.peek(3)) {
                (Some(Token::Text(text)), _, _) => (text.clone(), 2),
                (Some(Token::Symbol('(')), Some(Token::Text(text)), Some(Token::Symbol(')'))) => {
                    (text.clone(), 4)
                }
                // `pcall(require, "tenantauth")`: what becomes of it cannot be seen.
                _ => {
                    self.code.loads_others = true;
                    self.at += 1;
                    return None;
                }
            };
            self.at += length;
            if text != "tenantauth" {
                // What comes with nginx's Lua module calls nothing of ours.
                self.code.loads_others |=
                    !(text.starts_with("resty.") || text.starts_with("ngx.") || text == "cjson");
                return None;
            }
            self.code.requires_module = true;
            Bound::Module
        } else {
            let bound = self.modules.get(name).cloned()?;
            self.at += 1;
            bound
        };
        match (self.peek(0), self.peek(1)) {
            (Some(Token::Symbol('.')), Some(Token::Name(function))) if bound == Bound::Module => {
                let function = function.clone();
                self.at += 2;
                Some(Bound::Function(function))
            }
            _ => Some(bound),
        }
    }

    fn call(&mut self, function: String) {
        let line = self.line();
        self.call_at(function, line);
    }

    /// The options of a call, the function's name being taken already.
    fn call_at(&mut self, function: String, line: u32) {
        let options = if self.is_symbol(0, '{') {
            self.value(0)
        } else if self.is_symbol(0, '(') {
            self.at += 1;
            let value = if self.is_symbol(0, ')') { Value::Nil } else { self.value(0) };
            if self.is_symbol(0, ')') {
                self.at += 1;
                value
            } else {
                Value::Unknown
            }
        } else if let Some(Token::Text(text)) = self.peek(0) {
            let text = text.clone();
            self.at += 1;
            Value::Text(text)
        } else if function == "version" {
            return;
        } else {
            // It is handed on: to `pcall`, or to a name of the user's own.
            Value::Unknown
        };
        self.code.calls.push(Call { function, options, line });
    }

    /// A literal, where it is one, up to what ends it.
    fn value(&mut self, depth: u32) -> Value {
        let literal = match self.peek(0) {
            Some(Token::Text(text)) => Value::Text(text.clone()),
            Some(Token::Number(number)) => Value::Number(*number),
            Some(Token::Name(name)) if name == "true" || name == "false" => Value::Boolean(name == "true"),
            Some(Token::Name(name)) if name == "nil" => Value::Nil,
            Some(Token::Symbol('-')) => {
                if let Some(Token::Number(number)) = self.peek(1) {
                    let number = -*number;
                    self.at += 1;
                    Value::Number(number)
                } else {
                    Value::Unknown
                }
            }
            Some(Token::Symbol('{')) if depth < MAX_DEPTH => return self.table(depth),
            _ => Value::Unknown,
        };
        if literal != Value::Unknown {
            self.at += 1;
            let ends = match self.peek(0) {
                None => true,
                Some(Token::Symbol(symbol)) => matches!(symbol, ',' | ';' | '}' | ')'),
                Some(_) => false,
            };
            if ends {
                return literal;
            }
        }
        self.pass();
        Value::Unknown
    }

    /// Passes over an expression, up to the comma or bracket behind it.
    fn pass(&mut self) {
        let mut open = 0_u32;
        while let Some(token) = self.peek(0) {
            match token {
                Token::Symbol(',' | ';') if open == 0 => return,
                Token::Symbol('}' | ')' | ']') if open == 0 => return,
                Token::Symbol('{' | '(' | '[') => open += 1,
                Token::Symbol('}' | ')' | ']') => open -= 1,
                _ => {}
            }
            self.at += 1;
        }
    }

    fn table(&mut self, depth: u32) -> Value {
        self.at += 1;
        let mut entries = Vec::new();
        loop {
            let line = self.line();
            let name = match (self.peek(0), self.peek(1), self.peek(2), self.peek(3)) {
                (None, ..) => return Value::Unknown,
                (Some(Token::Symbol('}')), ..) => {
                    self.at += 1;
                    return Value::Table(entries);
                }
                (Some(Token::Symbol(',' | ';')), ..) => {
                    self.at += 1;
                    continue;
                }
                // What closes nothing here: no Lua that runs.
                (Some(Token::Symbol(')' | ']')), ..) => return Value::Unknown,
                (Some(Token::Name(name)), Some(Token::Symbol('=')), next, _)
                    if next != Some(&Token::Symbol('=')) =>
                {
                    let name = name.clone();
                    self.at += 2;
                    Some(name)
                }
                (
                    Some(Token::Symbol('[')),
                    Some(Token::Text(name)),
                    Some(Token::Symbol(']')),
                    Some(Token::Symbol('=')),
                ) => {
                    let name = name.clone();
                    self.at += 4;
                    Some(name)
                }
                _ => None,
            };
            let value = self.value(depth + 1);
            entries.push(Entry { name, value, line });
        }
    }
}
