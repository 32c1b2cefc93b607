//! HTML as Markdown, or as plain text.
//!
//! The page's tokens are written out as they come: no tree is built, so neither time nor memory grow with what it nests. A
//! page comes from a stranger.

use html5ever::tendril::StrTendril;
use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{BufferQueue, Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts};
use std::cell::RefCell;

/// What a page becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Markdown.
    Markdown,
    /// Its text, each block on a line of its own.
    Text,
}

/// Lists, quotes and marks within each other beyond this count as one.
const DEEPEST: usize = 32;

/// Elements of which nothing is shown.
const UNSHOWN: [&str; 9] = ["script", "style", "noscript", "iframe", "object", "embed", "template", "svg", "select"];

/// Elements that begin and end a block of text, and how many line ends are between it and its neighbours.
const BLOCKS: [(&str, u8); 36] = [
    ("title", 2),
    ("p", 2),
    ("div", 1),
    ("section", 2),
    ("article", 2),
    ("main", 2),
    ("header", 2),
    ("footer", 2),
    ("nav", 2),
    ("aside", 2),
    ("address", 2),
    ("figure", 2),
    ("figcaption", 2),
    ("form", 2),
    ("fieldset", 2),
    ("legend", 1),
    ("details", 2),
    ("summary", 1),
    ("dl", 2),
    ("dt", 1),
    ("dd", 1),
    ("body", 2),
    ("table", 2),
    ("caption", 1),
    ("tr", 1),
    ("h1", 2),
    ("h2", 2),
    ("h3", 2),
    ("h4", 2),
    ("h5", 2),
    ("h6", 2),
    ("ul", 2),
    ("ol", 2),
    ("li", 1),
    ("blockquote", 2),
    ("pre", 2),
];

/// So much is read at once, in bytes.
const PIECE: usize = 4096;

/// Converts a page. `stop` is asked now and then; once it is true there is no result.
pub(super) fn convert(html: &str, form: Form, stop: &dyn Fn() -> bool) -> Option<String> {
    let tokenizer = Tokenizer::new(Sink(RefCell::new(Writer::new(form))), TokenizerOpts::default());
    let input = BufferQueue::default();
    let mut rest = html;
    while !rest.is_empty() {
        // The tokenizer compares each attribute of a tag with all before it: a tag without an end takes long.
        if stop() {
            return None;
        }
        let (piece, next) = rest.split_at(rest.ceil_char_boundary(PIECE));
        input.push_back(StrTendril::from_slice(piece));
        let _ = tokenizer.feed(&input);
        rest = next;
    }
    tokenizer.end();
    let mut writer = tokenizer.sink.0.into_inner();
    writer.end_preformatted();
    writer.close_to(0);
    Some(writer.out.trim().to_owned())
}

struct Sink(RefCell<Writer>);

impl TokenSink for Sink {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        let mut writer = self.0.borrow_mut();
        match token {
            Token::CharacterTokens(text) => writer.text(&text),
            Token::TagToken(tag) if tag.kind == TagKind::StartTag => {
                writer.start(&tag);
                return match &*tag.name {
                    "title" | "textarea" => TokenSinkResult::RawData(RawKind::Rcdata),
                    "style" | "xmp" | "iframe" | "noembed" | "noframes" => TokenSinkResult::RawData(RawKind::Rawtext),
                    "script" => TokenSinkResult::RawData(RawKind::ScriptData),
                    _ => TokenSinkResult::Continue,
                };
            }
            Token::TagToken(tag) => writer.end(&tag.name),
            _ => {}
        }
        TokenSinkResult::Continue
    }
}

/// What the lines of a block begin with.
enum Container {
    Quote,
    /// An item of a list; its sign stands before its first line only.
    Item {
        sign: String,
        is_signed: bool,
    },
}

/// A list, and the number of its next item if it has numbers.
struct List {
    next: Option<u64>,
    /// The containers around it.
    outside: usize,
}

/// Text that is marked: the mark before it is written with its first character, the one behind it at its end.
struct Mark {
    element: String,
    before: &'static str,
    after: String,
    is_written: bool,
}

struct Writer {
    form: Form,
    out: String,
    /// Line ends that are due before the next text.
    due: u8,
    /// A space is due before the next text of the same line.
    space: bool,
    /// How deep within an element of which nothing is shown, and which.
    unshown: Option<(String, usize)>,
    containers: Vec<Container>,
    /// How many quotes the last line stands in.
    quotes: usize,
    lists: Vec<List>,
    marks: Vec<Mark>,
    /// The number of signs of a heading whose text has not come yet.
    heading: usize,
    /// Text that is kept as it stands, and its language.
    preformatted: Option<(String, String)>,
    tables: usize,
    /// Cells of this row so far; rows of this table so far.
    cells: usize,
    rows: usize,
}

impl Writer {
    fn new(form: Form) -> Self {
        Self {
            form,
            out: String::new(),
            due: 0,
            space: false,
            unshown: None,
            containers: Vec::new(),
            quotes: 0,
            lists: Vec::new(),
            marks: Vec::new(),
            heading: 0,
            preformatted: None,
            tables: 0,
            cells: 0,
            rows: 0,
        }
    }

    fn is_markdown(&self) -> bool {
        self.form == Form::Markdown
    }

    /// Ends the line; `count` line ends will stand before the next text. Within a cell a space must do.
    fn break_line(&mut self, count: u8) {
        if self.is_markdown() && self.cells > 0 {
            self.space = true;
        } else {
            self.due = self.due.max(count);
            self.space = false;
        }
    }

    fn text(&mut self, text: &str) {
        if self.unshown.is_some() {
            return;
        }
        if let Some((kept, _)) = &mut self.preformatted {
            kept.push_str(text);
            return;
        }
        for (at, word) in text.split(|c: char| c.is_ascii_whitespace()).enumerate() {
            self.space |= at > 0;
            if !word.is_empty() {
                self.word(word);
            }
        }
    }

    /// Writes what is due, then a word.
    fn word(&mut self, word: &str) {
        self.begin_text();
        self.out.push_str(word);
    }

    fn begin_text(&mut self) {
        if self.due > 0 || self.out.is_empty() {
            self.begin_line();
        } else if self.space && !self.out.ends_with([' ', '\n']) {
            self.out.push(' ');
        }
        self.space = false;
        for mark in self.marks.iter_mut().filter(|mark| !mark.is_written) {
            self.out.push_str(mark.before);
            mark.is_written = true;
        }
    }

    fn begin_line(&mut self) {
        let due = if self.out.is_empty() { 0 } else { self.due.min(2) };
        self.due = 0;
        let quotes = self.containers.iter().filter(|container| matches!(container, Container::Quote)).count();
        for _ in 1..due {
            self.out.push('\n');
            if self.is_markdown() {
                // An empty line between two of a quote belongs to it.
                self.out.push_str(&">".repeat(quotes.min(self.quotes)));
            }
        }
        self.quotes = quotes;
        if due > 0 {
            self.out.push('\n');
        }
        if self.is_markdown() {
            self.prefix();
            let signs = std::mem::take(&mut self.heading);
            if signs > 0 {
                self.out.push_str(&"#".repeat(signs));
                self.out.push(' ');
            }
        }
    }

    /// What stands before the text of a line: the signs of quotes and items.
    fn prefix(&mut self) {
        for container in &mut self.containers {
            match container {
                Container::Quote => self.out.push_str("> "),
                Container::Item { sign, is_signed: false } => self.out.push_str(sign),
                Container::Item { sign, .. } => self.out.push_str(&" ".repeat(sign.len())),
            }
            if let Container::Item { is_signed, .. } = container {
                *is_signed = true;
            }
        }
    }

    fn start(&mut self, tag: &Tag) {
        let name = &*tag.name;
        if let Some((unshown, depth)) = &mut self.unshown {
            *depth += usize::from(unshown == name && !tag.self_closing);
            return;
        }
        if UNSHOWN.contains(&name) {
            if !tag.self_closing && name != "embed" {
                self.unshown = Some((name.to_owned(), 1));
            }
            return;
        }
        if self.preformatted.is_some() {
            self.start_in_preformatted(tag);
            return;
        }
        if let Some(count) = block(name) {
            self.break_line(count);
        }
        match name {
            "br" => self.break_line(1),
            "hr" if self.is_markdown() => {
                self.break_line(2);
                self.word("---");
                self.break_line(2);
            }
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => self.heading = usize::from(name.as_bytes()[1] - b'0'),
            "blockquote" if self.containers.len() < DEEPEST => self.containers.push(Container::Quote),
            "ul" | "ol" if self.lists.len() < DEEPEST => {
                let first = attribute(tag, "start").and_then(|start| start.parse().ok()).unwrap_or(1);
                let next = (name == "ol").then_some(first);
                self.lists.push(List { next, outside: self.containers.len() });
            }
            "li" => self.item(),
            "pre" => self.preformatted = Some((String::new(), language(tag))),
            "table" => {
                self.tables += 1;
                if self.tables == 1 {
                    self.rows = 0;
                }
            }
            "td" | "th" if self.is_markdown() && self.tables == 1 => {
                // Nothing of an empty cell would begin the row's line.
                self.space = false;
                self.begin_text();
                self.out.push_str(if self.cells == 0 { "| " } else { " | " });
                self.cells += 1;
            }
            "td" | "th" => self.space = true,
            "img" if self.is_markdown() => self.image(tag),
            _ if self.is_markdown() => self.mark(tag),
            _ => {}
        }
    }

    fn end(&mut self, name: &str) {
        if let Some((unshown, depth)) = &mut self.unshown {
            *depth -= usize::from(unshown == name);
            if *depth == 0 {
                self.unshown = None;
            }
            return;
        }
        if self.preformatted.is_some() && name != "pre" {
            return;
        }
        match name {
            "pre" => self.end_preformatted(),
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => self.heading = 0,
            "blockquote" => {
                if let Some(at) = self.containers.iter().rposition(|container| matches!(container, Container::Quote)) {
                    self.containers.truncate(at);
                }
            }
            "ul" | "ol" => {
                if let Some(list) = self.lists.pop() {
                    self.containers.truncate(list.outside);
                }
            }
            "tr" if self.is_markdown() && self.tables == 1 => self.end_row(),
            "table" => {
                if self.tables == 1 {
                    self.end_row();
                }
                self.tables = self.tables.saturating_sub(1);
            }
            _ => {}
        }
        if let Some(at) = self.marks.iter().rposition(|mark| mark.element == name) {
            self.close_to(at);
        }
        if let Some(count) = block(name) {
            self.break_line(count);
        }
    }

    /// A new item of the innermost list, in the place of the last one.
    fn item(&mut self) {
        let Some(list) = self.lists.last_mut() else { return };
        self.containers.truncate(list.outside);
        let sign = match &mut list.next {
            None => "- ".to_owned(),
            Some(number) => {
                let sign = format!("{number}. ");
                *number = number.saturating_add(1);
                sign
            }
        };
        if self.containers.len() < DEEPEST {
            self.containers.push(Container::Item { sign, is_signed: false });
        }
    }

    fn mark(&mut self, tag: &Tag) {
        let (before, after) = match &*tag.name {
            "b" | "strong" => ("**", "**".to_owned()),
            "i" | "em" => ("*", "*".to_owned()),
            "code" | "kbd" | "samp" | "tt" => ("`", "`".to_owned()),
            "del" | "s" => ("~~", "~~".to_owned()),
            "a" => match attribute(tag, "href") {
                Some(href) if !href.trim().is_empty() => ("[", format!("]({})", href.trim())),
                _ => return,
            },
            _ => return,
        };
        // The same mark twice would cancel itself.
        if self.marks.len() < DEEPEST && !self.marks.iter().any(|mark| mark.before == before) {
            self.marks.push(Mark { element: tag.name.to_string(), before, after, is_written: false });
        }
    }

    /// Ends all marks but the first `count`.
    fn close_to(&mut self, count: usize) {
        while self.marks.len() > count {
            if let Some(mark) = self.marks.pop()
                && mark.is_written
            {
                self.out.push_str(&mark.after);
            }
        }
    }

    fn image(&mut self, tag: &Tag) {
        let text = attribute(tag, "alt").unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let shown = match attribute(tag, "src").map(str::trim) {
            None | Some("") => return,
            // The picture itself would stand there.
            Some(source) if source.starts_with("data:") => text,
            Some(source) => format!("![{text}]({source})"),
        };
        if !shown.is_empty() {
            self.word(&shown);
        }
    }

    fn end_row(&mut self) {
        let cells = std::mem::take(&mut self.cells);
        if cells == 0 {
            return;
        }
        self.out.push_str(" |");
        self.rows += 1;
        if self.rows == 1 {
            self.break_line(1);
            self.begin_line();
            self.out.push('|');
            self.out.push_str(&" --- |".repeat(cells));
        }
        self.break_line(1);
    }

    fn start_in_preformatted(&mut self, tag: &Tag) {
        let Some((kept, known)) = &mut self.preformatted else { return };
        match &*tag.name {
            "br" => kept.push('\n'),
            "code" if known.is_empty() => *known = language(tag),
            _ => {}
        }
    }

    fn end_preformatted(&mut self) {
        let Some((kept, language)) = self.preformatted.take() else { return };
        let text = kept.trim_matches('\n');
        if text.trim().is_empty() {
            return;
        }
        if !self.is_markdown() {
            self.begin_line();
            self.out.push_str(text);
            return;
        }
        let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
        let fence = "`".repeat(longest.max(2) + 1);
        for (at, line) in [&*format!("{fence}{language}")].into_iter().chain(text.lines()).chain([&*fence]).enumerate()
        {
            self.due = if at == 0 { self.due } else { 1 };
            self.begin_line();
            self.out.push_str(line);
        }
    }
}

fn block(name: &str) -> Option<u8> {
    BLOCKS.iter().find(|(block, _)| *block == name).map(|(_, count)| *count)
}

fn attribute<'a>(tag: &'a Tag, name: &str) -> Option<&'a str> {
    tag.attrs.iter().find(|attribute| &*attribute.name.local == name).map(|attribute| &*attribute.value)
}

/// The language of code, as pages name it to their highlighters.
fn language(tag: &Tag) -> String {
    let classes = attribute(tag, "class").unwrap_or_default().split_ascii_whitespace();
    let named = classes.filter_map(|class| class.strip_prefix("language-").or_else(|| class.strip_prefix("lang-")));
    let plain = |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric() || "+-#_".contains(c));
    named.filter(|name| plain(name)).take(1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn markdown(html: &str) -> String {
        convert(html, Form::Markdown, &|| false).unwrap()
    }

    fn text(html: &str) -> String {
        convert(html, Form::Text, &|| false).unwrap()
    }

    #[test]
    fn the_recorded_page() {
        let html = "<html><head><title>T</title></head><body><h1>Head</h1><p>para <b>bold</b></p></body></html>";
        assert_eq!(markdown(html), "T\n\n# Head\n\npara **bold**");
        assert_eq!(text(html), "T\n\nHead\n\npara bold");
    }

    #[test]
    fn text_is_marked() {
        let html = "<p>a<b> c </b>d <i><b>e</b></i> <code>f()</code> <a href=' /g?x=1&amp;y '>g\n <em>h</em></a><a name=x>.</a>";
        assert_eq!(markdown(html), "a **c** d ***e*** `f()` [g *h*](/g?x=1&y).");
        assert_eq!(markdown("<b></b>x<b><b>y</b></b> &lt;p&gt; &eacute;"), "x**y** <p> é");
        assert_eq!(
            markdown("<img alt='a  b' src=c.png> <img src='data:image/png;base64,xx' alt=d> <img>"),
            "![a b](c.png) d"
        );
    }

    #[test]
    fn lists_and_quotes_begin_their_lines() {
        let html = "<p>x</p><ul><li>a<ul><li>b<li><p>c</p><p>d</p></ul></li><li>e</ul>\
                    <ol start=9><li>f</li><li>g</li></ol><blockquote><p>h<br>i</p><p>j</p></blockquote>k";
        let expected = "x\n\n- a\n\n  - b\n\n  - c\n\n    d\n\n- e\n\n9. f\n10. g\n\n> h\n> i\n>\n> j\n\nk";
        assert_eq!(markdown(html), expected);
    }

    #[test]
    fn code_is_kept_as_it_stands() {
        let html = "<pre><code class='x language-rust'>fn <b>f</b>() {\n    `a`\n}\n</code></pre>after";
        assert_eq!(markdown(html), "```rust\nfn f() {\n    `a`\n}\n```\n\nafter");
        assert_eq!(markdown("<ul><li>a<pre>```\n b</pre></ul>"), "- a\n\n  ````\n  ```\n   b\n  ````");
    }

    #[test]
    fn tables_have_rows() {
        let html = "<table><thead><tr><th>A<th>B</tr></thead><tr><td><p>1</p><p>2</p></td><td></td></tr></table>x";
        assert_eq!(markdown(html), "| A | B |\n| --- | --- |\n| 1 2 |  |\n\nx");
    }

    #[test]
    fn what_nobody_sees_is_left_out() {
        let html = "<script>if (a < b) { '</p>' }</script><style>p { }</style>a<svg><svg><path/></svg>x</svg>b<!-- c -->\
                    <noscript>d</noscript><textarea><b>e</b></textarea>";
        assert_eq!(markdown(html), "ab<b>e</b>");
        assert_eq!(text(html), "ab<b>e</b>");
    }

    #[test]
    fn a_conversion_that_nobody_waits_for_ends() {
        let tag = format!("<a{}", " é".repeat(PIECE));
        let asked = std::cell::Cell::new(0);
        let stop = || asked.replace(asked.get() + 1) == 2;
        assert_eq!(convert(&tag, Form::Text, &stop), None);
        assert_eq!(asked.get(), 3);
    }

    #[test]
    fn a_hostile_page_takes_no_more_time_than_its_length() {
        let count = 20_000;
        for (open, inner) in
            [("<div>", "x"), ("<b><p>", "x"), ("<ul><li>", "x"), ("<blockquote>", ""), ("<table><tr><td>", "x")]
        {
            let page = format!("{}{}", open.repeat(count), inner);
            assert!(markdown(&page).len() < 10 * page.len(), "{open}");
        }
        assert!(markdown(&"<ul><li><blockquote>x".repeat(count)).len() < count * 200);
        assert!(markdown(&"</b></ul></table></pre></svg></li>".repeat(count)).is_empty());
    }
}
