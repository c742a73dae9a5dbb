//! Filters: CEL expressions over the attributes of exchanges.
//!
//! The crate `cel` parses and evaluates. What is done here is to find the attributes in an expression, so that no other
//! is worked out and a wrong name is an error before anything is read, and to let an absent attribute make a comparison
//! false: in CEL it is an error, which would take the rest of the expression with it.

use std::{borrow::Cow, collections::HashMap, fmt, sync::Arc};

use cel::{
    Context, Env, ExecutionError, IdedExpr,
    common::{
        ast::{EntryExpr, Expr, LiteralValue, SourceInfo, operators},
        types::{CelBool, CelBytes, CelDuration, CelInt, CelMap, CelMapKey, CelString, CelTimestamp, CelUInt},
        value::{CowVal, Val},
    },
    context::VariableResolver,
};
use regex::Regex;

use super::{Attribute, ExchangeRecord, Fields, HttpConnectionEnd, Value};

/// The functions that an expression may call.
const FUNCTIONS: &[&str] = &[
    "bool",
    "bytes",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "type",
    "uint",
];

/// The types that an expression may name.
const TYPES: &[&str] = &["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// What begins the names of our own variables. No identifier has a space.
const HAS: &str = "has ";
const CONSTANT: &str = "constant ";
const MATCHES: &str = "matches ";

/// An expression that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {message}")]
pub struct FilterError {
    /// Where in the expression, from 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// A compiled expression that an exchange, or a connection, matches or not.
pub struct Filter {
    /// As it was written.
    text: String,
    root: Node,
    /// The attributes that the expression names.
    attributes: Vec<&'static Attribute>,
    constants: Vec<cel::Value>,
    regexes: Vec<Regex>,
    env: Arc<Env>,
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter").field("attributes", &self.attributes).finish_non_exhaustive()
    }
}

/// The logic of an expression. Everything below it is CEL's to evaluate.
#[derive(Debug)]
enum Node {
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    Not(Box<Node>),
    If(Box<[Node; 3]>),
    Leaf(IdedExpr),
}

impl Filter {
    /// Compiles an expression.
    ///
    /// # Errors
    /// It is not CEL, or it names an attribute or a function that there is not.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        check_size(text)?;
        let failed = || FilterError { column: 1, message: "the expression cannot be parsed".to_owned() };
        std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().stack_size(STACK);
            let thread = builder.spawn_scoped(scope, || Self::compile(text)).map_err(|_| failed())?;
            thread.join().map_err(|_| failed())?
        })
    }

    fn compile(text: &str) -> Result<Self, FilterError> {
        let env = Arc::new(Env::stdlib());
        let (mut expr, source) =
            env.parser().enable_optional_syntax(false).parse_with_source_info(text).map_err(|errors| {
                let first = errors.errors.into_iter().next();
                let (position, message) = first.map_or(((1, 1), "no expression".to_owned()), |error| {
                    (error.pos, error.msg.trim_start_matches("Syntax error: ").to_owned())
                });
                FilterError { column: column(text, position), message }
            })?;
        let mut preparation = Preparation {
            source: &source,
            depth: 0,
            bound: Vec::new(),
            macros: 0,
            macros_within: 0,
            attributes: Vec::new(),
            constants: Vec::new(),
            regexes: Vec::new(),
        };
        preparation.expr(&mut expr)?;
        let Preparation { attributes, constants, regexes, .. } = preparation;
        Ok(Self { text: text.to_owned(), root: Node::of(expr), attributes, constants, regexes, env })
    }

    /// The expression as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the expression names an attribute that only the end of a connection tells.
    #[must_use]
    pub fn needs_end(&self) -> bool {
        self.attributes.iter().any(|attribute| attribute.of_end)
    }

    /// Whether the expression names an attribute that only pairing tells.
    #[must_use]
    pub fn needs_pairing(&self) -> bool {
        self.attributes.iter().any(|attribute| attribute.is_of_pair())
    }

    /// Whether an exchange matches. If [`Filter::needs_end`], the record must have the end.
    ///
    /// # Errors
    /// The expression has no value for it, for example because it compares a number with text.
    pub fn holds(&self, record: ExchangeRecord<'_>) -> Result<bool, String> {
        self.holds_for(Subject::Exchange(record))
    }

    /// Whether a connection without exchanges matches: only what is known of connections has a value. The record's
    /// exchange is one that nothing is known of.
    ///
    /// # Errors
    /// As [`Filter::holds`].
    pub fn holds_without_exchange(&self, record: ExchangeRecord<'_>) -> Result<bool, String> {
        self.holds_for(Subject::Connection(record))
    }

    /// What the expression needs of an exchange, as bytes, until the end of its connection comes.
    #[must_use]
    pub fn keep(&self, record: ExchangeRecord<'_>) -> Vec<u8> {
        let mut kept = Vec::new();
        for (index, attribute) in self.attributes.iter().enumerate().filter(|(_, attribute)| !attribute.of_end) {
            if let (Some(value), Ok(index)) = (attribute.of(record), u8::try_from(index)) {
                kept.push(index);
                write_value(&mut kept, &value);
            }
        }
        kept
    }

    /// Whether an exchange matches, of which these bytes were kept.
    ///
    /// # Errors
    /// As [`Filter::holds`].
    pub fn holds_for_kept(&self, mut kept: &[u8], end: &HttpConnectionEnd) -> Result<bool, String> {
        let mut values = Vec::new();
        while let Some((index, rest)) = kept.split_first() {
            kept = rest;
            let (Some(attribute), Some(value)) = (self.attributes.get(usize::from(*index)), read_value(&mut kept))
            else {
                break;
            };
            values.push((attribute.name, value));
        }
        self.holds_for(Subject::Kept { values, end })
    }

    fn holds_for(&self, subject: Subject<'_>) -> Result<bool, String> {
        let variables = Variables { filter: self, subject };
        let mut context = Context::with_env(Arc::clone(&self.env));
        for (index, regex) in self.regexes.iter().enumerate() {
            let regex = regex.clone();
            // This name is no other function's.
            let _ = context
                .add_function(&format!("{MATCHES}{index}"), move |text: Arc<String>| regex.is_match(text.as_str()));
        }
        context.set_variable_resolver(&variables);
        self.root.holds(self, &context)
    }
}

/// How deep brackets may be nested in an expression, and how many operators it may have. The parser calls itself for each
/// of them.
const MAX_DEPTH: usize = 32;
const MAX_OPERATORS: usize = 400;

/// The most macros (`all`, `exists`, `map` and so on), and the most within each other: each multiplies the time, and may
/// double what an expression builds.
const MAX_MACROS: usize = 8;
const MAX_MACROS_WITHIN: usize = 2;

/// How deep the parsed expression may be, which is evaluated on the stack of any thread.
const MAX_TREE: usize = 64;

/// What the parser needs in a build without optimization, for an expression at these limits.
const STACK: usize = 48 << 20;

/// Checks what would take too much of the parser's stack.
fn check_size(text: &str) -> Result<(), FilterError> {
    let (mut depth, mut operators, mut quote, mut escaped) = (0_usize, 0, None, false);
    for (index, char) in text.chars().enumerate() {
        if escaped || quote.is_some() {
            (escaped, quote) = (!escaped && char == '\\', quote.filter(|quote| escaped || *quote != char));
            continue;
        }
        match char {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '"' | '\'' => quote = Some(char),
            _ if "!-+*/%<>=&|?.".contains(char) => operators += 1,
            _ => {}
        }
        let message = match (depth > MAX_DEPTH, operators > MAX_OPERATORS) {
            (true, _) => format!("brackets are nested more than {MAX_DEPTH} times"),
            (_, true) => format!("more than {MAX_OPERATORS} operators"),
            _ => continue,
        };
        return Err(FilterError { column: index + 1, message });
    }
    Ok(())
}

/// The column of a position in text: lines count as well, because the text is one argument.
fn column(text: &str, (line, column): (isize, isize)) -> usize {
    let before: usize =
        text.split('\n').take(usize::try_from(line - 1).unwrap_or(0)).map(|line| line.chars().count() + 1).sum();
    before + usize::try_from(column).unwrap_or(1).max(1)
}

impl Node {
    fn of(mut expr: IdedExpr) -> Self {
        if let Expr::Call(call) = &mut expr.expr
            && call.target.is_none()
        {
            let mut args = call.args.drain(..);
            match (call.func_name.as_str(), args.len()) {
                (operators::LOGICAL_AND, 2) => {
                    if let (Some(left), Some(right)) = (args.next(), args.next()) {
                        return Self::And(Box::new([Self::of(left), Self::of(right)]));
                    }
                }
                (operators::LOGICAL_OR, 2) => {
                    if let (Some(left), Some(right)) = (args.next(), args.next()) {
                        return Self::Or(Box::new([Self::of(left), Self::of(right)]));
                    }
                }
                (operators::LOGICAL_NOT, 1) => {
                    if let Some(operand) = args.next() {
                        return Self::Not(Box::new(Self::of(operand)));
                    }
                }
                (operators::CONDITIONAL, 3) => {
                    if let (Some(condition), Some(then), Some(otherwise)) = (args.next(), args.next(), args.next()) {
                        return Self::If(Box::new([Self::of(condition), Self::of(then), Self::of(otherwise)]));
                    }
                }
                _ => {
                    let kept = args.collect();
                    call.args = kept;
                }
            }
        }
        Self::Leaf(expr)
    }

    fn holds(&self, filter: &Filter, context: &Context<'_, '_>) -> Result<bool, String> {
        match self {
            // As in CEL, one operand that decides is enough, whatever is wrong with the other.
            Self::And(operands) => match operands[0].holds(filter, context) {
                Ok(false) => Ok(false),
                first => match operands[1].holds(filter, context) {
                    Ok(false) => Ok(false),
                    second => first.and(second),
                },
            },
            Self::Or(operands) => match operands[0].holds(filter, context) {
                Ok(true) => Ok(true),
                first => match operands[1].holds(filter, context) {
                    Ok(true) => Ok(true),
                    second => first.and(second),
                },
            },
            Self::Not(operand) => Ok(!operand.holds(filter, context)?),
            Self::If(parts) => {
                let chosen = if parts[0].holds(filter, context)? { &parts[1] } else { &parts[2] };
                chosen.holds(filter, context)
            }
            Self::Leaf(expr) => match context.resolve(expr) {
                Ok(cel::Value::Bool(holds)) => Ok(holds),
                Ok(other) => Err(format!("an expression that is true or false is needed, not {:?}", other.type_of())),
                Err(ExecutionError::NoSuchKey(_)) => Ok(false),
                Err(ExecutionError::UndeclaredReference(name)) if filter.names(&name) => Ok(false),
                Err(error) => Err(error.to_string()),
            },
        }
    }
}

impl Filter {
    fn names(&self, name: &str) -> bool {
        self.attributes.iter().any(|attribute| attribute.name == name)
    }
}

/// Finds and replaces the attributes in an expression.
struct Preparation<'a> {
    source: &'a SourceInfo,
    depth: usize,
    /// The variables of the macros around.
    bound: Vec<String>,
    /// How many macros there were, and how many are around.
    macros: usize,
    macros_within: usize,
    attributes: Vec<&'static Attribute>,
    constants: Vec<cel::Value>,
    regexes: Vec<Regex>,
}

impl Preparation<'_> {
    fn error(&self, id: u64, message: String) -> FilterError {
        let start = self.source.offset_for(id).map_or(0, |(start, _)| start as usize);
        FilterError { column: start + 1, message }
    }

    fn is_bound(&self, name: &str) -> bool {
        name.starts_with('@') || self.bound.iter().any(|bound| bound == name)
    }

    /// The names that are joined by dots in an expression that is nothing else, and where the first one stands.
    fn dotted(&self, expr: &IdedExpr) -> Option<(u64, String)> {
        match &expr.expr {
            Expr::Ident(name) if !self.is_bound(name) => Some((expr.id, name.clone())),
            Expr::Select(select) if !select.test => {
                // No attribute has more parts.
                let Expr::Ident(_) = &select.operand.expr else { return None };
                let (start, object) = self.dotted(&select.operand)?;
                Some((start, format!("{object}.{}", select.field)))
            }
            _ => None,
        }
    }

    /// Puts an attribute in the place of an expression.
    fn name(&mut self, expr: &mut IdedExpr, id: u64, attribute: &'static Attribute, is_test: bool) {
        if !self.attributes.iter().any(|known| known.name == attribute.name) {
            self.attributes.push(attribute);
        }
        let has = if is_test { HAS } else { "" };
        *expr = IdedExpr { id, expr: Expr::Ident(format!("{has}{}", attribute.name)) };
    }

    fn expr(&mut self, expr: &mut IdedExpr) -> Result<(), FilterError> {
        if self.depth == MAX_TREE {
            return Err(self.error(expr.id, format!("more than {MAX_TREE} operations within each other")));
        }
        self.depth += 1;
        let result = self.expr_within(expr);
        self.depth -= 1;
        result
    }

    fn expr_within(&mut self, expr: &mut IdedExpr) -> Result<(), FilterError> {
        let id = expr.id;
        match &mut expr.expr {
            Expr::Select(select) => {
                if let Some((start, object)) = self.dotted(&select.operand) {
                    let name = format!("{object}.{}", select.field);
                    if let Some(attribute) = Attribute::named(&name) {
                        // It stands where its object stands.
                        let is_test = select.test;
                        self.name(expr, start, attribute, is_test);
                        return Ok(());
                    }
                    if !object.contains('.') {
                        return Err(self.error(start, unknown(&name)));
                    }
                }
                self.expr(&mut select.operand)?;
                match &select.operand.expr {
                    Expr::Ident(name) if Attribute::named(name).is_some_and(|attribute| !attribute.is_map()) => {
                        let message = format!("{name} has no members, so there is no {name}.{}", select.field);
                        Err(self.error(select.operand.id, message))
                    }
                    _ => Ok(()),
                }
            }
            Expr::Ident(name) => {
                if self.is_bound(name) || TYPES.contains(&name.as_str()) {
                    return Ok(());
                }
                if let Some(attribute) = Attribute::named(name) {
                    self.name(expr, id, attribute, false);
                    return Ok(());
                }
                let message = unknown(name);
                Err(self.error(id, message))
            }
            Expr::Call(call) => {
                let is_operator = !call.func_name.starts_with(|first: char| first.is_ascii_alphabetic());
                if !is_operator && !FUNCTIONS.contains(&call.func_name.as_str()) {
                    let message = format!("no function \"{}\"{}", call.func_name, nearest(&call.func_name, FUNCTIONS));
                    return Err(self.error(id, message));
                }
                call.target.iter_mut().try_for_each(|target| self.expr(target))?;
                call.args.iter_mut().try_for_each(|arg| self.expr(arg))?;
                let literal = match call.args.last().map(|last| &last.expr) {
                    Some(Expr::Literal(LiteralValue::String(text))) => text.inner().to_owned(),
                    _ => return Ok(()),
                };
                match (call.func_name.as_str(), &mut call.target, call.args.len()) {
                    // The same for each exchange, so they are worked out once. What is wrong shows before anything is
                    // read.
                    ("duration" | "timestamp", None, 1) => {
                        let value = Context::default().resolve(expr);
                        let value = value.map_err(|error| self.error(id, error.to_string()))?;
                        let name = format!("{CONSTANT}{}", self.constants.len());
                        self.constants.push(value);
                        *expr = IdedExpr { id, expr: Expr::Ident(name) };
                    }
                    ("matches", target, _) => {
                        let text = match (target.take(), call.args.len()) {
                            (Some(target), 1) => *target,
                            (None, 2) => call.args.swap_remove(0),
                            (target, _) => {
                                call.target = target;
                                return Ok(());
                            }
                        };
                        let regex = Regex::new(&literal).map_err(|error| {
                            let reason = error.to_string();
                            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
                            self.error(id, format!("no regular expression: {reason}"))
                        })?;
                        call.func_name = format!("{MATCHES}{}", self.regexes.len());
                        call.args = vec![text];
                        self.regexes.push(regex);
                    }
                    _ => {}
                }
                Ok(())
            }
            Expr::List(list) => list.elements.iter_mut().try_for_each(|element| self.expr(element)),
            Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.expr(&mut entry.key)?;
                    self.expr(&mut entry.value)
                }
                EntryExpr::StructField(field) => self.expr(&mut field.value),
            }),
            Expr::Struct(_) => {
                let message = "messages cannot be made here".to_owned();
                Err(self.error(id, message))
            }
            Expr::Comprehension(comprehension) => {
                self.macros += 1;
                if self.macros > MAX_MACROS || self.macros_within == MAX_MACROS_WITHIN {
                    let (most, within) = (MAX_MACROS, MAX_MACROS_WITHIN);
                    let message = format!("more than {most} macros such as all and map, or {within} within each other");
                    return Err(self.error(expr.id, message));
                }
                self.expr(&mut comprehension.iter_range)?;
                self.expr(&mut comprehension.accu_init)?;
                let before = self.bound.len();
                self.bound.push(comprehension.iter_var.clone());
                self.bound.extend(comprehension.iter_var2.clone());
                self.bound.push(comprehension.accu_var.clone());
                self.macros_within += 1;
                self.expr(&mut comprehension.loop_cond)?;
                self.expr(&mut comprehension.loop_step)?;
                self.macros_within -= 1;
                self.expr(&mut comprehension.result)?;
                self.bound.truncate(before);
                Ok(())
            }
            Expr::Literal(_) | Expr::Unspecified => Ok(()),
        }
    }
}

/// Words about a name that is no attribute, with the one that was probably meant.
fn unknown(name: &str) -> String {
    let members: Vec<_> = Attribute::ALL.iter().filter(|attribute| attribute.parts().0 == name).collect();
    if let Some(first) = members.first() {
        return format!("\"{name}\" alone is no attribute, {} is one", first.name);
    }
    let names: Vec<&str> = Attribute::ALL.iter().map(|attribute| attribute.name).collect();
    // `method` may stand for `request.method`.
    let second = Attribute::ALL.iter().find(|attribute| attribute.parts().1 == name);
    let meant = second.map_or_else(|| nearest(name, &names), |attribute| format!("; did you mean {}?", attribute.name));
    format!("no attribute \"{name}\"{meant}")
}

fn nearest(name: &str, names: &[&str]) -> String {
    let alike = names.iter().map(|other| (strsim::jaro_winkler(name, other), other));
    let best = alike.max_by(|left, right| left.0.total_cmp(&right.0)).filter(|(alike, _)| *alike > 0.8);
    best.map(|(_, other)| format!("; did you mean {other}?")).unwrap_or_default()
}

/// What an expression is evaluated for.
enum Subject<'a> {
    Exchange(ExchangeRecord<'a>),
    Connection(ExchangeRecord<'a>),
    Kept { values: Vec<(&'static str, Value<'a>)>, end: &'a HttpConnectionEnd },
}

/// The values of attributes, worked out when they are needed.
struct Variables<'a> {
    filter: &'a Filter,
    subject: Subject<'a>,
}

impl Variables<'_> {
    fn value(&self, name: &str) -> Option<Value<'_>> {
        let attribute = self.filter.attributes.iter().find(|attribute| attribute.name == name)?;
        match &self.subject {
            Subject::Exchange(record) => attribute.of(*record),
            Subject::Connection(record) => {
                let is_exchanges = matches!(attribute.parts().0, "request" | "response");
                if is_exchanges { None } else { attribute.of(*record) }
            }
            Subject::Kept { end, .. } if attribute.of_end => end.value(attribute.parts().1),
            Subject::Kept { values, .. } => {
                values.iter().find(|(other, _)| *other == name).map(|(_, value)| value.clone())
            }
        }
    }
}

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        if let Some(name) = name.strip_prefix(HAS) {
            return Some(CowVal::owned(CelBool::from(self.value(name).is_some())));
        }
        if let Some(number) = name.strip_prefix(CONSTANT) {
            let value = self.filter.constants.get(number.parse::<usize>().ok()?)?;
            return value.clone().try_into().ok().map(CowVal::Owned);
        }
        Some(match self.value(name)? {
            Value::Text(text) => CowVal::owned(CelString::from(lossy(text))),
            // The attributes that are unsigned in Envoy.
            Value::Number(number) if name.ends_with("connection.id") => CowVal::owned(CelUInt::from(number)),
            Value::Number(number) => CowVal::owned(CelInt::from(i64::try_from(number).unwrap_or(i64::MAX))),
            Value::Flag(flag) => CowVal::owned(CelBool::from(flag)),
            Value::Time(nanos) => {
                let time = chrono::DateTime::from_timestamp_nanos(i64::try_from(nanos).unwrap_or(i64::MAX));
                CowVal::owned(CelTimestamp::from(time.fixed_offset()))
            }
            Value::Duration(nanos) => {
                let nanos = i64::try_from(nanos).unwrap_or(i64::MAX);
                CowVal::owned(CelDuration::from(chrono::Duration::nanoseconds(nanos)))
            }
            Value::Bytes(Cow::Borrowed(bytes)) => CowVal::owned(CelBytes::from(bytes)),
            Value::Bytes(Cow::Owned(bytes)) => CowVal::owned(CelBytes::from(bytes)),
            Value::Map(fields) => {
                let entries: HashMap<CelMapKey<'b>, Box<dyn Val + 'b>> = fields
                    .merged()
                    .into_iter()
                    .map(|(name, value)| {
                        let name = CelMapKey::from(lossy(Cow::Owned(name)).into_owned());
                        (name, Box::new(CelString::from(lossy(value).into_owned())) as Box<dyn Val + 'b>)
                    })
                    .collect();
                CowVal::owned(CelMap::from(entries))
            }
        })
    }
}

fn lossy(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(
            String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into()),
        ),
    }
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}

/// Writes a value, after a byte for its type.
fn write_value(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Text(bytes) => {
            out.push(0);
            write_bytes(out, bytes);
        }
        Value::Bytes(bytes) => {
            out.push(1);
            write_bytes(out, bytes);
        }
        Value::Map(fields) => {
            out.push(2);
            out.extend((fields.len() as u64).to_le_bytes());
            for (name, value) in fields.iter() {
                write_bytes(out, name);
                write_bytes(out, value);
            }
        }
        Value::Flag(flag) => out.extend([3, u8::from(*flag)]),
        Value::Number(number) | Value::Time(number) | Value::Duration(number) => {
            out.push(match value {
                Value::Time(_) => 5,
                Value::Duration(_) => 6,
                _ => 4,
            });
            out.extend(number.to_le_bytes());
        }
    }
}

fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

fn read_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(read_number(bytes)?).ok()?;
    let (part, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(part)
}

fn read_value<'a>(bytes: &mut &'a [u8]) -> Option<Value<'a>> {
    let (kind, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(match kind {
        0 => Value::Text(read_bytes(bytes)?.into()),
        1 => Value::Bytes(read_bytes(bytes)?.into()),
        2 => {
            let mut fields = Fields::default();
            for _ in 0..read_number(bytes)? {
                let name = read_bytes(bytes)?;
                fields.push(name, read_bytes(bytes)?);
            }
            Value::Map(Cow::Owned(fields))
        }
        3 => {
            let (flag, rest) = bytes.split_first()?;
            *bytes = rest;
            Value::Flag(*flag != 0)
        }
        4 => Value::Number(read_number(bytes)?),
        5 => Value::Time(read_number(bytes)?),
        _ => Value::Duration(read_number(bytes)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        http::{Exchange, HttpConnection, Pairing},
        pairing::Certainty,
        timeline::Role,
        trace::Place,
    };

    fn exchange() -> Exchange {
        let connection = HttpConnection {
            number: 0,
            trace_id: 7,
            began: Some(1_000_000_000),
            role: Role::Downstream,
            source: None,
            destination: None,
            http_tap: false,
            upstream: None,
            place: Place::default(),
        };
        let mut exchange = Exchange::new(Arc::new(connection), Place::default());
        exchange.method = Some(b"GET".to_vec());
        exchange.path = Some(b"/a?b=1".to_vec());
        exchange.code = Some(503);
        exchange.request.began = Some(1_000_000_000);
        exchange.response.ended = Some(2_500_000_000);
        exchange.request.has_head = true;
        exchange.request.fields.push(b"X-Tenant", b"blue");
        exchange.request.fields.push(b"accept", b"a");
        exchange.request.fields.push(b"accept", b"b");
        exchange.request.body = b"hello".to_vec();
        exchange.request.complete = true;
        exchange
    }

    fn end(exchange: &Exchange) -> HttpConnectionEnd {
        HttpConnectionEnd {
            connection: Arc::clone(&exchange.connection),
            had_exchanges: true,
            duration: Some(3_000_000_000),
            closed: None,
            protocol: Some("http/1.1"),
            received: Some(100),
            sent: Some(u64::MAX),
        }
    }

    /// Evaluates an expression at once and from what is kept of the exchange, which must be the same.
    fn holds(text: &str) -> Result<bool, String> {
        let filter = Filter::parse(text).map_err(|error| error.to_string())?;
        let exchange = exchange();
        let end = end(&exchange);
        let pairing = Pairing {
            certainty: Some(Certainty::Certain),
            upstream_connection: Some(9),
            request_latency: Some(2_000_000),
            ..Pairing::default()
        };
        let pairing = Some(&pairing);
        let record = ExchangeRecord { exchange: &exchange, end: Some(&end), pairing, file: "a.pb", max_body: 100 };
        let held = filter.holds(record);
        assert_eq!(held, filter.holds_for_kept(&filter.keep(record), &end), "{text}");
        held
    }

    fn holds_all(filter: &Filter) -> Result<bool, String> {
        let exchange = exchange();
        filter.holds(ExchangeRecord { exchange: &exchange, end: None, pairing: None, file: "a.pb", max_body: 100 })
    }

    #[test]
    fn an_expression_cannot_run_for_ever_or_build_without_bounds() {
        let nested = |depth: usize| {
            let starts: String = (0..depth).map(|at| format!("[1, 2].all(v{at}, ")).collect();
            format!("{starts}v0 > 0{}", ")".repeat(depth))
        };
        assert_eq!(holds(&nested(2)), Ok(true));
        assert!(holds(&nested(3)).unwrap_err().contains("more than 8 macros"));
        let doubled = |times: usize| format!("[\"a\"]{}[0] != \"\"", ".map(a, a + a)".repeat(times));
        assert_eq!(holds(&doubled(8)), Ok(true));
        assert!(holds(&doubled(9)).unwrap_err().contains("more than 8 macros"));
    }

    #[test]
    fn attributes_have_their_types() {
        for text in [
            "response.code >= 500",
            "request.method == 'GET' && request.path.startsWith('/a')",
            "request.duration > duration('1s') && request.duration == duration('1500ms')",
            "request.time == timestamp('1970-01-01T00:00:01Z') && request.time.getFullYear() == 1970",
            "request.headers['x-tenant'] == 'blue' && request.headers.accept == 'a,b'",
            "'x-tenant' in request.headers && !('x' in request.headers)",
            "request.headers.exists(name, name.matches('^x-.*t$'))",
            "request.body == b'hello' && size(request.body) == 5",
            "connection.id == 7u && connection.id == 7",
            "request.complete && !response.complete",
            "connection.protocol == 'http/1.1' && connection.received_bytes < 1000",
            "connection.duration == duration('3s') && connection.sent_bytes > 0",
            "trace.file.endsWith('.pb') && trace.offset == 0",
            "request.method in ['GET', 'HEAD']",
            "pairing == 'certain' && upstream.connection.id == 9u && has(upstream.connection.id)",
            "envoy.request_latency > duration('1ms') && !has(envoy.response_latency)",
            "request.path.matches('b=[0-9]+')",
            "response.code == 503 ? request.method == 'GET' : false",
        ] {
            assert_eq!(holds(text), Ok(true), "{text}");
            assert_eq!(holds(&format!("!({text})")), Ok(false), "{text}");
        }
    }

    #[test]
    fn an_absent_attribute_makes_a_comparison_false() {
        for text in [
            "request.host == 'a'",
            "request.host != 'a'",
            "request.headers['none'] == 'a'",
            "response.headers['none'] == 'a'",
            "request.host.startsWith('a')",
            "has(request.host)",
            "has(request.headers.none)",
            "response.grpc_status > 0",
        ] {
            assert_eq!(holds(text), Ok(false), "{text}");
            assert_eq!(holds(&format!("!({text})")), Ok(true), "{text}");
            assert_eq!(holds(&format!("{text} || response.code == 503")), Ok(true), "{text}");
        }
        assert_eq!(holds("has(request.method) && has(request.headers.accept)"), Ok(true));
    }

    #[test]
    fn what_cannot_be_evaluated_is_no_match_with_a_reason() {
        for text in ["response.code > 'x'", "request.method", "1 / 0 == 1", "response.code + 1"] {
            assert!(holds(text).is_err(), "{text}");
        }
        // One operand that decides is enough, as in CEL.
        assert_eq!(holds("1 / 0 == 1 || response.code == 503"), Ok(true));
        assert_eq!(holds("response.code == 1 && 1 / 0 == 1"), Ok(false));
    }

    #[test]
    fn an_error_points_at_its_column_and_names_what_was_meant() {
        let error = |text| Filter::parse(text).map(|_| ()).unwrap_err().to_string();
        assert_eq!(error("response.cod == 1"), "column 1: no attribute \"response.cod\"; did you mean response.code?");
        assert_eq!(error("true && method == 'GET'"), "column 9: no attribute \"method\"; did you mean request.method?");
        assert_eq!(error("request == 1"), "column 1: \"request\" alone is no attribute, request.time is one");
        assert_eq!(error("banana == 1"), "column 1: no attribute \"banana\"");
        assert_eq!(error("true && begins(request.path)"), "column 15: no function \"begins\"");
        assert_eq!(
            error("request.path.startWith('/')"),
            "column 23: no function \"startWith\"; did you mean startsWith?"
        );
        assert_eq!(
            error("request.path.x == 1"),
            "column 1: request.path has no members, so there is no request.path.x"
        );
        assert!(error("response.code >=").starts_with("column 17: mismatched input"), "{}", error("response.code >="));
        assert!(error("request.path.matches('(')").contains("no regular expression"));
        assert!(
            error("request.duration > duration('1 hour')").starts_with("column 28: "),
            "{}",
            error("request.duration > duration('1 hour')")
        );
        assert!(Filter::parse("").is_err());
        for part in
            ["(", "[", "{", "!", "-", "! ", "a?", "a.", "true||", "true&&", "1+", "a?b:", "f(", "x.map(y,", "a["]
        {
            for count in [20, 32, 400, 10_000] {
                assert!(Filter::parse(&part.repeat(count)).is_err(), "{part}");
            }
        }
        for (part, last) in [("true||", "true"), ("true&&", "true"), ("true?true:", "true"), ("1+", "1==1")] {
            for count in [30, 200] {
                let _ = Filter::parse(&(part.repeat(count) + last)).map(|filter| holds_all(&filter));
            }
        }
    }

    #[test]
    fn a_connection_without_exchanges_has_only_its_own_attributes() {
        let exchange = exchange();
        let end = end(&exchange);
        let record =
            ExchangeRecord { exchange: &exchange, end: Some(&end), pairing: None, file: "a.pb", max_body: 100 };
        let holds = |text| Filter::parse(text).unwrap().holds_without_exchange(record);
        assert_eq!(holds("connection.id == 7"), Ok(true));
        assert_eq!(holds("has(request.complete) || response.code == 503"), Ok(false));
    }

    #[test]
    fn every_function_is_one_of_cels() {
        for function in FUNCTIONS.iter().filter(|function| **function != "matches") {
            let context = Context::default();
            let call = |text: String| match Env::stdlib().compile(&text).map(|program| program.execute(&context)) {
                Ok(Err(ExecutionError::UndeclaredReference(_))) => false,
                result => result.is_ok(),
            };
            assert!(call(format!("{function}('a')")) || call(format!("'a'.{function}('a')")), "{function}");
        }
    }
}
