//! Reads nginx's configuration language, as `ngx_conf_read_token` (src/core/ngx_conf_file.c of nginx 1.27) does, and
//! the
//! bodies of `*_by_lua_block`, as ngx_http_lua_lex.c of the Lua module does.
//!
//! A configuration is a file with what it includes, or the output of `nginx -T`, which holds each file behind a line
//! `# configuration file NAME:`.

use super::files::Files;
use super::lua::skip_block;
use crate::file::FileError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// Blocks within blocks, files that include files.
const MAX_DEPTH: u32 = 40;
/// Directives of a configuration, those of a file that is included twice counted twice.
const MAX_DIRECTIVES: usize = 500_000;
/// Before the name of each file in what `nginx -T` prints.
const DUMPED: &str = "# configuration file ";

/// Why a configuration cannot be read.
#[derive(Debug, Error)]
#[error("{file}:{line}: {problem}")]
pub struct Unreadable {
    /// The file, as the configuration names it.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with the text of a configuration, or with a file of it.
#[derive(Debug, Error)]
pub enum Problem {
    /// A character where it cannot stand.
    #[error("unexpected `{0}`")]
    Unexpected(char),
    /// A file, a block or a quoted text that does not end.
    #[error("unexpected end of file, expecting {0}")]
    End(&'static str),
    /// More blocks in blocks, or includes in includes, than any configuration has.
    #[error("blocks and includes are nested deeper than 40 levels")]
    TooDeep,
    /// More directives than any configuration has.
    #[error("more than 500000 directives")]
    TooMany,
    /// A file that cannot be read.
    #[error("cannot read `{0}`: {1}")]
    File(String, FileError),
}

/// A place in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as the configuration or the command line names it.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
}

/// A directive with its arguments, without quotes and escapes.
#[derive(Clone, Debug)]
pub struct Directive {
    /// Its name, or the first word of a line of `map`, `geo` and `types`.
    pub name: String,
    /// The words behind the name.
    pub arguments: Vec<String>,
    /// Where its name stands.
    pub place: Place,
    /// What stands in its braces.
    pub body: Body,
}

/// What a directive ends in.
#[derive(Clone, Debug)]
pub enum Body {
    /// A semicolon.
    None,
    /// Directives.
    Block(Vec<Directive>),
    /// Lua code, and the line on which it begins.
    Lua(String, u32),
}

impl Directive {
    /// An argument; empty where there is none.
    pub fn argument(&self, number: usize) -> &str {
        self.arguments.get(number).map_or("", String::as_str)
    }

    /// The directives of its block.
    pub fn block(&self) -> &[Self] {
        if let Body::Block(block) = &self.body { block } else { &[] }
    }
}

/// A configuration with everything that it includes.
#[derive(Debug, Default)]
pub struct Configuration {
    /// The directives of the main context.
    pub directives: Vec<Directive>,
    /// Files that are included by name, and could not be read: where, the name, why.
    pub missing: Vec<(Place, String, FileError)>,
    /// The directory to which names of files are relative.
    pub prefix: PathBuf,
    /// Whether it is what `nginx -T` printed: no file of it was read here.
    pub is_dump: bool,
}

/// A file of a configuration: its name and its text.
struct Source {
    name: Arc<str>,
    text: Arc<str>,
}

struct Reader<'a> {
    /// Those that `nginx -T` printed; empty where files are read.
    dumped: Vec<Source>,
    files: &'a dyn Files,
    /// What nginx resolves names of includes against: the directory of its main file.
    directory: PathBuf,
    missing: Vec<(Place, String, FileError)>,
    directives: usize,
}

/// Reads a configuration.
///
/// `name`: what diagnostics call the text, and what includes are relative to. `text`: a file, or what `nginx -T`
/// printed. `files`: where included files are read from; not asked for a dump.
///
/// # Errors
/// Where nginx could not read the configuration either, with the place.
pub fn read(name: &str, text: &str, files: &dyn Files) -> Result<Configuration, Unreadable> {
    let dumped = undump(text);
    let is_dump = !dumped.is_empty();
    let (name, text): (Arc<str>, Arc<str>) = match dumped.first() {
        Some(main) => (Arc::clone(&main.name), Arc::clone(&main.text)),
        None => (name.into(), text.into()),
    };
    let directory = Path::new(&*name).parent().unwrap_or(Path::new("")).to_owned();
    let mut reader =
        Reader { dumped, files, directory: directory.clone(), missing: Vec::new(), directives: 0 };
    let directives = reader.file(&name, &text, 0)?;
    Ok(Configuration { directives, missing: reader.missing, prefix: directory, is_dump })
}

/// Whether nginx wrote the line to stderr: `nginx: ...`, or a date.
fn is_log(line: &str) -> bool {
    let is_dated = matches!(line.as_bytes(), [b'0'..=b'9', _, _, _, b'/', _, _, b'/', ..]);
    is_dated || line.starts_with("nginx: ") || line.trim().is_empty()
}

/// The files in the output of `nginx -T`; none where it is not that.
fn undump(text: &str) -> Vec<Source> {
    let mut files: Vec<Source> = Vec::new();
    let mut content = String::new();
    let mut name: Option<&str> = None;
    let mut lines = text.split_inclusive('\n').peekable();
    // What the test said stands before, where both streams went into one file.
    while lines.next_if(|line| is_log(line)).is_some() {}
    for line in lines {
        let header = line.trim_end().strip_prefix(DUMPED).and_then(|rest| rest.strip_suffix(':'));
        match (header, name) {
            (Some(next), _) => {
                if let Some(name) = name {
                    files.push(Source { name: name.into(), text: std::mem::take(&mut content).into() });
                }
                name = Some(next);
            }
            (None, Some(_)) => content.push_str(line),
            (None, None) => return Vec::new(),
        }
    }
    if let Some(name) = name {
        files.push(Source { name: name.into(), text: content.into() });
    }
    files
}

impl Reader<'_> {
    fn file(&mut self, name: &Arc<str>, text: &str, depth: u32) -> Result<Vec<Directive>, Unreadable> {
        let mut lexer = Lexer { name: Arc::clone(name), rest: text, line: 1 };
        let found = self.block(&mut lexer, depth, false)?;
        Ok(found)
    }

    /// The directives up to the end of the block, or of the file.
    fn block(
        &mut self,
        lexer: &mut Lexer<'_>,
        depth: u32,
        in_braces: bool,
    ) -> Result<Vec<Directive>, Unreadable> {
        if depth > MAX_DEPTH {
            return Err(lexer.problem(Problem::TooDeep));
        }
        let mut found = Vec::new();
        loop {
            let (words, end, line) = lexer.statement()?;
            let mut words = words.into_iter();
            let Some(directive) = words.next() else {
                return match (end, in_braces) {
                    (End::Close, true) | (End::File, false) => Ok(found),
                    (End::Close, false) => Err(lexer.problem(Problem::Unexpected('}'))),
                    _ => Err(lexer.problem(Problem::End("`}`"))),
                };
            };
            self.directives += 1;
            if self.directives > MAX_DIRECTIVES {
                return Err(lexer.problem(Problem::TooMany));
            }
            let place = Place { file: Arc::clone(&lexer.name), line };
            let arguments: Vec<String> = words.collect();
            let body = match end {
                End::Open if directive.ends_with("_by_lua_block") => {
                    let line = lexer.line;
                    Body::Lua(lexer.lua()?, line)
                }
                End::Open => Body::Block(self.block(lexer, depth + 1, true)?),
                _ => Body::None,
            };
            match (&*directive, &body, arguments.first()) {
                ("include", Body::None, Some(pattern)) => {
                    found.extend(self.include(&place, pattern, depth)?);
                }
                _ => found.push(Directive { name: directive, arguments, place, body }),
            }
        }
    }

    /// What the files of this name or pattern hold.
    fn include(&mut self, place: &Place, pattern: &str, depth: u32) -> Result<Vec<Directive>, Unreadable> {
        if depth >= MAX_DEPTH {
            let (file, line) = (Arc::clone(&place.file), place.line);
            return Err(Unreadable { file, line, problem: Problem::TooDeep });
        }
        let path = self.directory.join(pattern);
        let is_pattern = pattern.contains(['*', '?', '[']);
        let mut sources = Vec::new();
        if self.dumped.is_empty() {
            let paths = if is_pattern { self.files.matching(&path) } else { vec![path] };
            for path in paths {
                let shown = path.display().to_string();
                match self.files.read(&path) {
                    Ok(text) => sources.push(Source { name: shown.into(), text: text.into() }),
                    Err(error) => self.missing.push((place.clone(), shown, error)),
                }
            }
        } else {
            let wanted = path.display().to_string();
            let fits = |source: &&Source| match is_pattern {
                true => glob(wanted.as_bytes(), source.name.as_bytes()),
                false => *source.name == *wanted,
            };
            let mut names: Vec<_> = self.dumped.iter().filter(fits).collect();
            names.sort_by(|one, other| one.name.cmp(&other.name));
            names.dedup_by(|one, other| one.name == other.name);
            let copies = names
                .iter()
                .map(|source| Source { name: Arc::clone(&source.name), text: Arc::clone(&source.text) });
            sources.extend(copies);
            if sources.is_empty() && !is_pattern {
                self.missing.push((
                    place.clone(),
                    wanted,
                    FileError::from(std::io::Error::from(std::io::ErrorKind::NotFound)),
                ));
            }
        }
        let mut found = Vec::new();
        for Source { name, text } in sources {
            found.extend(self.file(&name, &text, depth + 1)?);
        }
        Ok(found)
    }
}

/// How a statement ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Semicolon,
    Open,
    Close,
    File,
}

struct Lexer<'t> {
    name: Arc<str>,
    rest: &'t str,
    line: u32,
}

impl Lexer<'_> {
    fn problem(&self, problem: Problem) -> Unreadable {
        Unreadable { file: Arc::clone(&self.name), line: self.line, problem }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let character = characters.next()?;
        self.rest = characters.as_str();
        self.line += u32::from(character == '\n');
        Some(character)
    }

    /// The words up to what ends the statement, and the line of the first.
    fn statement(&mut self) -> Result<(Vec<String>, End, u32), Unreadable> {
        let mut words: Vec<String> = Vec::new();
        let mut first = self.line;
        loop {
            let Some(character) = self.peek() else {
                return match words.is_empty() {
                    true => Ok((words, End::File, self.line)),
                    false => Err(self.problem(Problem::End("`;` or `{`"))),
                };
            };
            match character {
                ' ' | '\t' | '\r' | '\n' => _ = self.take(),
                '#' => {
                    let end = self.rest.find('\n').unwrap_or(self.rest.len());
                    self.rest = self.rest.get(end..).unwrap_or_default();
                }
                ';' | '{' if words.is_empty() => return Err(self.problem(Problem::Unexpected(character))),
                '}' if !words.is_empty() => return Err(self.problem(Problem::Unexpected(character))),
                ';' | '{' | '}' => {
                    _ = self.take();
                    let end = match character {
                        ';' => End::Semicolon,
                        '{' => End::Open,
                        _ => End::Close,
                    };
                    return Ok((words, end, first));
                }
                _ => {
                    if words.is_empty() {
                        first = self.line;
                    }
                    let word = if matches!(character, '"' | '\'') { self.quoted()? } else { self.word()? };
                    words.push(word);
                }
            }
        }
    }

    /// A word in quotes, behind which nothing but a blank or the end of the statement stands.
    fn quoted(&mut self) -> Result<String, Unreadable> {
        let quote = self.take();
        let mut word = String::new();
        loop {
            match self.take() {
                None => return Err(self.problem(Problem::End("the quote that ends a text"))),
                Some('\\') => self.escape(&mut word),
                character if character == quote => break,
                Some(character) => word.push(character),
            }
        }
        match self.peek() {
            None | Some(' ' | '\t' | '\r' | '\n' | ';' | '{' | ')') => Ok(word),
            Some(other) => Err(self.problem(Problem::Unexpected(other))),
        }
    }

    fn word(&mut self) -> Result<String, Unreadable> {
        let mut word = String::new();
        let mut is_variable = false;
        while let Some(character) = self.peek() {
            match character {
                ' ' | '\t' | '\r' | '\n' | ';' => break,
                '{' if !is_variable => break,
                _ => {}
            }
            _ = self.take();
            is_variable = character == '$';
            if character == '\\' {
                self.escape(&mut word);
            } else {
                word.push(character);
            }
        }
        if self.rest.is_empty() { Err(self.problem(Problem::End("`;` or `{`"))) } else { Ok(word) }
    }

    /// What a backslash stands for, which is taken already.
    fn escape(&mut self, word: &mut String) {
        match self.take() {
            Some('t') => word.push('\t'),
            Some('r') => word.push('\r'),
            Some('n') => word.push('\n'),
            Some(character @ ('"' | '\'' | '\\')) => word.push(character),
            Some(character) => word.extend(['\\', character]),
            None => word.push('\\'),
        }
    }

    /// Lua code up to the brace that closes it, which is taken.
    fn lua(&mut self) -> Result<String, Unreadable> {
        let Some(length) = skip_block(self.rest) else {
            return Err(self.problem(Problem::End("the `}` that ends Lua code")));
        };
        let (code, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        self.line += u32::try_from(code.matches('\n').count()).unwrap_or_default();
        self.rest = rest.strip_prefix('}').unwrap_or(rest);
        Ok(code.to_owned())
    }
}

/// Whether a name has the form of a pattern of glob(7): `*`, `?` and `[...]`, none of which stands for a `/`.
///
/// Without recursion: of several `*` only the last is tried again.
pub(super) fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut of, mut again) = (0, 0, None);
    loop {
        let wanted = pattern.get(at).copied();
        let here = name.get(of).copied();
        if wanted == Some(b'*') {
            again = Some((at, of));
            at += 1;
            continue;
        }
        let fits = match (wanted, here) {
            (None, None) => return true,
            (Some(b'?'), Some(byte)) => (byte != b'/').then_some(1),
            (Some(b'['), Some(byte)) => class(pattern.get(at..).unwrap_or_default(), byte),
            (Some(wanted), Some(byte)) => (wanted == byte).then_some(1),
            _ => None,
        };
        match (fits, again) {
            (Some(width), _) => (at, of) = (at + width, of + 1),
            (None, Some((star, from))) if name.get(from).is_some_and(|byte| *byte != b'/') => {
                again = Some((star, from + 1));
                (at, of) = (star + 1, from + 1);
            }
            _ => return false,
        }
    }
}

/// The length of the class at the start of the pattern, where it holds the byte.
fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let inner = pattern.get(1..)?;
    let (is_negated, inner) = match inner {
        [b'!' | b'^', rest @ ..] => (true, rest),
        _ => (false, inner),
    };
    // A bracket that comes first is one of the class.
    let length = inner.iter().skip(1).position(|byte| *byte == b']')? + 1;
    let members = inner.get(..length)?;
    let mut holds = members.contains(&byte);
    holds |= members
        .windows(3)
        .any(|range| matches!(range, [first, b'-', last] if (first..=last).contains(&&byte)));
    (holds != is_negated && byte != b'/').then_some(length + 2 + usize::from(is_negated))
}
