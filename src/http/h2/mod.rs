//! HTTP/2 (RFC 9113), read from the bytes of both directions as they come.

pub(crate) mod frame;
mod hpack;

use std::collections::{BTreeMap, VecDeque};

pub(crate) use self::hpack::{LAST_STATIC, MAX_TABLE};
use self::{
    frame::{
        CONTINUATION, DATA, DEFAULT_MAX_LEN, END_HEADERS, END_STREAM, FrameHead, GOAWAY, HEAD, HEADERS, PADDED,
        PRIORITIZED, PUSH_PROMISE, RST_STREAM,
    },
    hpack::Hpack,
};
use super::{
    Context, Loss,
    exchange::{Exchange, Fields, WebSocket},
    grpc,
    web_socket::Frames,
    wire::{BlockField, BlockFrame, HeaderBlock, Representation, Wire, WireKind},
};
use crate::{
    timeline::PREFACE,
    trace::{HttpFact, HttpSide, Nanos, Place},
};

/// The longest header block that is read, as it was sent.
const MAX_BLOCK: usize = 256 << 10;

/// The longest header list that is kept, names and values together. Few bytes of a block may stand for many of a list.
const MAX_LIST: usize = 256 << 10;

/// The most frames of one header block. An endless row of empty ones is an attack.
const MAX_CONTINUATIONS: u32 = 1024;

/// How many streams of a connection may be open. One more gives up the oldest.
const MAX_STREAMS: usize = 16_384;

/// How many streams are remembered after their end, so that late frames do not bring them back.
const REMEMBERED: usize = 256;

const SIDES: [HttpSide; 2] = [HttpSide::Request, HttpSide::Response];

/// What is read next in one direction.
#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// The head of a frame, whose beginning may have come.
    #[default]
    Head,
    /// The payload of DATA: how many bytes are left, and how many of them are padding; `None` until the first byte says
    /// how many.
    Data { frame: FrameHead, left: u32, padding: Option<u32> },
    /// The payload of any other frame, whose beginning may be in the buffer.
    Payload { frame: FrameHead, left: u32 },
    /// Bytes are missing, so the next frame must be found.
    Lost,
}

/// A header block that is not whole yet.
#[derive(Debug)]
struct Block {
    stream: u32,
    /// The stream that a PUSH_PROMISE opens.
    promised: Option<u32>,
    end_stream: bool,
    bytes: Vec<u8>,
    continuations: u32,
    began: (Nanos, Place),
    /// Its frames, if they are recorded.
    frames: Vec<BlockFrame>,
}

#[derive(Debug)]
struct Side {
    state: State,
    head: [u8; HEAD],
    have: usize,
    /// How many bytes of the client's preface are still to come.
    preface: usize,
    payload: Vec<u8>,
    block: Option<Block>,
    hpack: Hpack,
    /// The number of its last GOAWAY.
    last_processed: Option<u32>,
    /// The longest frame so far, at least [`DEFAULT_MAX_LEN`].
    max_len: u32,
    skipped: u64,
    /// How often bytes were lost that may have belonged to any stream.
    losses: u64,
    /// When and where the current frame began.
    began: (Nanos, Place),
}

impl Side {
    fn new(preface: usize) -> Self {
        Self {
            state: State::Head,
            head: [0; HEAD],
            have: 0,
            preface,
            payload: Vec::new(),
            block: None,
            hpack: Hpack::default(),
            last_processed: None,
            max_len: DEFAULT_MAX_LEN,
            skipped: 0,
            losses: 0,
            began: Default::default(),
        }
    }
}

/// A stream that is not over.
#[derive(Debug)]
struct Stream {
    exchange: Box<Exchange>,
    done: [bool; 2],
    grpc: Option<Box<grpc::Reader>>,
    /// The frames of a WebSocket on the stream (RFC 8441).
    frames: Option<Box<[Frames; 2]>>,
    /// What [`Side::losses`] was when the stream was last touched.
    losses: [u64; 2],
}

/// The fields of a header block.
#[derive(Debug, Default)]
struct List {
    fields: Fields,
    method: Option<Vec<u8>>,
    scheme: Option<Vec<u8>>,
    authority: Option<Vec<u8>>,
    path: Option<Vec<u8>>,
    protocol: Option<Vec<u8>>,
    status: Option<u16>,
    pseudo_size: u64,
    unknown: u64,
    size: usize,
    /// Some of the list is missing: it is too long, or its block is cut or is not HPACK.
    damaged: bool,
}

/// A connection that speaks HTTP/2.
#[derive(Debug)]
pub(super) struct Http2 {
    sides: [Side; 2],
    streams: BTreeMap<u32, Stream>,
    ended: VecDeque<u32>,
    /// Streams may have begun where bytes are missing.
    may_have_missed: bool,
    /// The highest stream that the client opened.
    highest: u32,
    grpc: bool,
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            sides: [Side::new(PREFACE.len()), Side::new(0)],
            streams: BTreeMap::new(),
            ended: VecDeque::new(),
            may_have_missed: false,
            highest: 0,
            grpc: false,
        }
    }
}

impl Http2 {
    /// A connection whose beginning is not in the trace.
    pub(super) fn in_the_middle() -> Self {
        let mut http = Self { sides: [Side::new(0), Side::new(0)], may_have_missed: true, ..Self::default() };
        for side in &mut http.sides {
            side.hpack.lose();
            // The first bytes are found to be frames as those after a loss are.
            (side.state, side.losses) = (State::Lost, 1);
        }
        http
    }

    /// A connection that begins with an upgrade; `exchange` is the request that asked for it.
    pub(super) fn after_upgrade(mut exchange: Box<Exchange>) -> Self {
        let mut http = Self { highest: 1, ..Self::default() };
        exchange.protocol = Some("HTTP/2");
        let grpc = grpc::Reader::of(&mut exchange, HttpSide::Request);
        let stream = Stream { exchange, done: [true, false], grpc, frames: None, losses: [0; 2] };
        http.streams.insert(1, stream);
        http
    }

    /// Whether bytes of a body come next.
    pub(super) fn is_in_body(&self, side: HttpSide) -> bool {
        matches!(self.sides[side.index()].state, State::Data { .. })
    }

    /// Whether missing bytes may have been those of any stream.
    pub(super) fn would_go_adrift(&self, side: HttpSide, loss: Loss) -> bool {
        match (self.sides[side.index()].state, loss) {
            (State::Data { left, .. } | State::Payload { left, .. }, Loss::Exactly(bytes)) => bytes > u64::from(left),
            _ => true,
        }
    }

    /// Whether an exchange was gRPC.
    pub(super) fn is_grpc(&self) -> bool {
        self.grpc
    }

    /// Takes the bytes of one side.
    pub(super) fn data(&mut self, context: &mut Context<'_>, side: HttpSide, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let state = &mut self.sides[side.index()];
            let read = match state.state {
                State::Head if state.preface > 0 => {
                    let taken = rest.len().min(state.preface);
                    let at = PREFACE.len() - state.preface;
                    if rest[..taken] == PREFACE[at..at + taken] {
                        state.preface -= taken;
                        context.record(side, WireKind::Framing, &rest[..taken]);
                        taken
                    } else {
                        state.preface = 0;
                        self.go_adrift(context, side);
                        0
                    }
                }
                State::Head => self.head(context, side, rest),
                State::Data { frame, left, padding } => self.body(context, side, rest, frame, left, padding),
                State::Payload { frame, left } => self.payload(context, side, rest, frame, left),
                State::Lost => {
                    let found = match context.shared.is_strict {
                        true => FrameHead::find_to_the_end(rest, state.max_len),
                        false => FrameHead::find(rest, state.max_len),
                    };
                    let skipped = found.unwrap_or(rest.len());
                    context.record_unknown(side, &rest[..skipped]);
                    state.skipped += skipped as u64;
                    if found.is_some() {
                        state.state = State::Head;
                        self.report_skipped(context, side);
                    }
                    skipped
                }
            };
            rest = &rest[read..];
        }
    }

    /// Bytes of one side that are not in the trace.
    pub(super) fn lose(&mut self, context: &mut Context<'_>, side: HttpSide, loss: Loss) {
        let state = &mut self.sides[side.index()];
        match (state.state, loss) {
            (State::Data { frame, left, padding }, Loss::Exactly(bytes)) if bytes <= u64::from(left) => {
                let lost = bytes as u32;
                // If the padding's length is lost as well, the body may be shorter than it seems.
                let body = left - padding.unwrap_or(0).min(left);
                let size = if padding.is_none() { None } else { Some(u64::from(lost.min(body))) };
                self.lose_body(frame.stream, side, size);
                self.go_on_in_data(context, side, frame, left - lost, padding.or(Some(0)));
            }
            (State::Data { frame, left, padding }, _) => {
                let body = left - padding.unwrap_or(0).min(left);
                let size = if loss == Loss::Unknown || padding.is_none() { None } else { Some(u64::from(body)) };
                self.lose_body(frame.stream, side, size);
                // Its last byte is lost, and when that came is not known.
                self.go_adrift(context, side);
                if frame.has(END_STREAM) && loss != Loss::Unknown {
                    self.end_side(context, frame.stream, side, false);
                }
            }
            (State::Payload { frame, left }, loss) => {
                self.cut_payload(context, side, frame, left);
                match loss {
                    Loss::Exactly(bytes) if bytes <= u64::from(left) => {
                        let left = left - bytes as u32;
                        // What is left of it is skipped: nothing is read from it any more.
                        self.sides[side.index()].state =
                            if left == 0 { State::Head } else { State::Payload { frame: SKIPPED, left } };
                    }
                    _ => self.go_adrift(context, side),
                }
            }
            (State::Head, _) => {
                if let Some(block) = self.sides[side.index()].block.take() {
                    self.cut_block(context, side, block);
                }
                self.go_adrift(context, side);
            }
            (State::Lost, _) => self.go_adrift(context, side),
        }
    }

    /// What waits for more bytes gets none.
    pub(super) fn drop_held(&mut self, context: &mut Context<'_>, side: HttpSide) {
        if let State::Payload { frame, left } = self.sides[side.index()].state {
            self.cut_payload(context, side, frame, left);
            self.sides[side.index()].state = State::Head;
        }
        if let Some(block) = self.sides[side.index()].block.take() {
            self.cut_block(context, side, block);
        }
        let state = &mut self.sides[side.index()];
        context.record_unreadable(side, std::mem::take(&mut state.have));
    }

    /// The connection is over; `closed` says that the trace shows it.
    pub(super) fn finish(&mut self, context: &mut Context<'_>, _closed: bool) {
        for side in SIDES {
            self.drop_held(context, side);
            self.report_skipped(context, side);
        }
        while let Some((id, _)) = self.streams.first_key_value() {
            let id = *id;
            self.give_up(context, id);
        }
    }

    fn report_skipped(&mut self, context: &mut Context<'_>, side: HttpSide) {
        let bytes = std::mem::take(&mut self.sides[side.index()].skipped);
        if bytes > 0 {
            context.report(HttpFact::Skipped { side, bytes });
        }
    }

    /// Frames are missing that may have been of any kind and stream.
    fn go_adrift(&mut self, context: &mut Context<'_>, side: HttpSide) {
        let state = &mut self.sides[side.index()];
        let of_block: usize = state.block.iter().flat_map(|block| &block.frames).map(BlockFrame::bytes).sum();
        context.record_unreadable(side, state.have + state.payload.len() + of_block);
        state.state = State::Lost;
        (state.have, state.preface) = (0, 0);
        state.payload.clear();
        state.block = None;
        state.hpack.lose();
        state.losses += 1;
        self.may_have_missed = true;
    }

    fn head(&mut self, context: &mut Context<'_>, side: HttpSide, bytes: &[u8]) -> usize {
        let state = &mut self.sides[side.index()];
        if state.have == 0 {
            state.began = (context.time, context.place);
        }
        let taken = bytes.len().min(HEAD - state.have);
        state.head[state.have..state.have + taken].copy_from_slice(&bytes[..taken]);
        state.have += taken;
        if state.have < HEAD {
            return taken;
        }
        let frame = FrameHead::parse(state.head);
        if context.shared.is_strict && !frame.may_be_one(state.max_len, state.losses > 0) {
            self.go_adrift(context, side);
            return taken;
        }
        state.have = 0;
        state.max_len = state.max_len.max(frame.len);
        if !frame.is_sound() {
            context.report(HttpFact::BadFrame(side));
        }
        // A header block is not interrupted (RFC 9113 section 6.10).
        let block = state.block.as_ref().map(|block| block.stream);
        let goes_on = frame.kind == CONTINUATION && block == Some(frame.stream);
        if block.is_some() != goes_on || (frame.kind == CONTINUATION && !goes_on) {
            context.report(HttpFact::BadFrame(side));
            if let Some(block) = state.block.take() {
                self.cut_block(context, side, block);
            }
            self.sides[side.index()].hpack.lose();
        }
        let state = &mut self.sides[side.index()];
        if frame.kind == DATA {
            let padding = if frame.has(PADDED) { None } else { Some(0) };
            context.record(side, WireKind::DataHead(frame), &[]);
            self.go_on_in_data(context, side, frame, frame.len, padding);
        } else if frame.len == 0 {
            state.state = State::Head;
            self.frame(context, side, frame, &[]);
        } else {
            state.state = State::Payload { frame, left: frame.len };
            if is_long(frame) {
                context.record(side, WireKind::Framing, &frame.to_bytes());
            }
        }
        taken
    }

    fn body(
        &mut self,
        context: &mut Context<'_>,
        side: HttpSide,
        bytes: &[u8],
        frame: FrameHead,
        left: u32,
        padding: Option<u32>,
    ) -> usize {
        let Some(padding) = padding else {
            let padding = u32::from(bytes[0]);
            context.record(side, WireKind::PadLength, &bytes[..1]);
            if padding >= left {
                context.report(HttpFact::BadFrame(side));
            }
            self.go_on_in_data(context, side, frame, left - 1, Some(padding.min(left - 1)));
            return 1;
        };
        let taken = bytes.len().min(left as usize);
        let body = taken.min((left - padding.min(left)) as usize);
        context.record(side, WireKind::Data(frame), &bytes[..body]);
        context.record(side, WireKind::Padding, &bytes[body..taken]);
        if body > 0
            && let Some(stream) = self.touched(frame.stream, side)
            && !stream.done[side.index()]
        {
            stream.add_body(context, side, &bytes[..body]);
        }
        self.go_on_in_data(context, side, frame, left - taken as u32, Some(padding));
        taken
    }

    /// `left` bytes of a DATA frame are still to come. If that is none, the frame ends.
    fn go_on_in_data(
        &mut self,
        context: &mut Context<'_>,
        side: HttpSide,
        frame: FrameHead,
        left: u32,
        padding: Option<u32>,
    ) {
        if left > 0 {
            self.sides[side.index()].state = State::Data { frame, left, padding };
            return;
        }
        self.sides[side.index()].state = State::Head;
        context.record(side, WireKind::DataEnd(frame), &[]);
        if frame.has(END_STREAM) {
            self.end_side(context, frame.stream, side, true);
        }
    }

    /// Reads the payload of a frame other than DATA.
    fn payload(
        &mut self,
        context: &mut Context<'_>,
        side: HttpSide,
        bytes: &[u8],
        frame: FrameHead,
        left: u32,
    ) -> usize {
        let taken = bytes.len().min(left as usize);
        let state = &mut self.sides[side.index()];
        if frame.len == SKIPPED.len || is_long(frame) {
            context.record_unreadable(side, taken);
        }
        if taken as u32 == frame.len {
            state.state = State::Head;
            self.frame(context, side, frame, &bytes[..taken]);
            return taken;
        }
        if (is_read(frame.kind) || (context.records() && frame.len != SKIPPED.len)) && !is_long(frame) {
            state.payload.extend_from_slice(&bytes[..taken]);
        }
        let left = left - taken as u32;
        state.state = State::Payload { frame, left };
        if left == 0 {
            let mut payload = std::mem::take(&mut state.payload);
            state.state = State::Head;
            self.frame(context, side, frame, &payload);
            payload.clear();
            if payload.capacity() <= HEAD << 10 {
                self.sides[side.index()].payload = payload;
            }
        }
        taken
    }

    /// Takes a whole frame other than DATA. The payload of one that is too long is empty.
    fn frame(&mut self, context: &mut Context<'_>, side: HttpSide, frame: FrameHead, payload: &[u8]) {
        let is_recorded_later = frame.is_sound() && has_block(frame.kind);
        if frame != SKIPPED && payload.len() == frame.len as usize && !is_long(frame) && !is_recorded_later {
            context.record(side, WireKind::Frame(frame), payload);
        }
        if !frame.is_sound() || !is_read(frame.kind) {
            return;
        }
        if payload.len() < frame.len as usize {
            context.report(HttpFact::LongHead { side, limit: MAX_BLOCK });
            self.lose_block(context, side, frame);
            return;
        }
        match frame.kind {
            HEADERS | PUSH_PROMISE => {
                let Some(block) = self.begin_block(context, side, frame, payload) else {
                    context.record(side, WireKind::Frame(frame), payload);
                    context.report(HttpFact::BadFrame(side));
                    self.lose_block(context, side, frame);
                    return;
                };
                self.go_on(context, side, frame, block);
            }
            CONTINUATION => {
                let Some(mut block) = self.sides[side.index()].block.take() else {
                    context.record(side, WireKind::Frame(frame), payload);
                    return;
                };
                block.continuations += 1;
                if block.bytes.len() + payload.len() > MAX_BLOCK || block.continuations > MAX_CONTINUATIONS {
                    let fact = if block.continuations > MAX_CONTINUATIONS {
                        HttpFact::ManyContinuations { side, limit: MAX_CONTINUATIONS }
                    } else {
                        HttpFact::LongHead { side, limit: MAX_BLOCK }
                    };
                    context.report(fact);
                    self.cut_block(context, side, block);
                    context.record(side, WireKind::Frame(frame), payload);
                    return;
                }
                block.add_frame(context, frame, payload.len());
                block.bytes.extend_from_slice(payload);
                self.go_on(context, side, frame, block);
            }
            RST_STREAM => self.give_up(context, frame.stream),
            GOAWAY => {
                let last = u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]]) & (u32::MAX >> 1);
                // The peer's streams above this number were not processed (RFC 9113 section 6.8).
                let peers = u32::from(side == HttpSide::Response);
                // A server may send several, each with a lower number. Any other one says nothing new.
                let before = &mut self.sides[side.index()].last_processed;
                if last >= before.unwrap_or(u32::MAX >> 1) {
                    return;
                }
                *before = Some(last);
                let above: Vec<u32> =
                    self.streams.range(last + 1..).map(|(id, _)| *id).filter(|id| id % 2 == peers).collect();
                above.into_iter().for_each(|id| self.give_up(context, id));
            }
            _ => {}
        }
    }

    /// The first part of a header block, without padding and priority.
    fn begin_block(&self, context: &Context<'_>, side: HttpSide, frame: FrameHead, payload: &[u8]) -> Option<Block> {
        let mut rest = payload;
        let mut padding = 0;
        if frame.has(PADDED) {
            let (length, after) = rest.split_first()?;
            padding = usize::from(*length);
            rest = after.get(..after.len().checked_sub(padding)?)?;
        }
        let mut promised = None;
        if frame.kind == PUSH_PROMISE {
            let (id, after) = rest.split_first_chunk()?;
            promised = Some(u32::from_be_bytes(*id) & (u32::MAX >> 1));
            rest = after;
        } else if frame.has(PRIORITIZED) {
            rest = rest.get(5..)?;
        }
        let mut frames = Vec::new();
        if context.records() {
            let prefix = payload[..payload.len() - padding - rest.len()].to_vec();
            frames.push(BlockFrame { head: frame, prefix, fragment: rest.len(), padding });
        }
        Some(Block {
            frames,
            stream: frame.stream,
            promised,
            end_stream: frame.kind == HEADERS && frame.has(END_STREAM),
            bytes: rest.to_vec(),
            continuations: 0,
            began: self.sides[side.index()].began,
        })
    }

    fn go_on(&mut self, context: &mut Context<'_>, side: HttpSide, frame: FrameHead, block: Block) {
        if frame.has(END_HEADERS) {
            self.end_block(context, side, block, None);
        } else {
            self.sides[side.index()].block = Some(block);
        }
    }

    /// A header block's frame cannot be read, so the table is not known any more.
    fn lose_block(&mut self, context: &mut Context<'_>, side: HttpSide, frame: FrameHead) {
        let began = self.sides[side.index()].began;
        let (stream, end_stream) = (frame.stream, frame.kind == HEADERS && frame.has(END_STREAM));
        let block = Block {
            stream,
            promised: None,
            end_stream,
            bytes: Vec::new(),
            continuations: 0,
            began,
            frames: Vec::new(),
        };
        match frame.kind {
            HEADERS => self.cut_block(context, side, block),
            PUSH_PROMISE => self.sides[side.index()].hpack.lose(),
            CONTINUATION => {
                if let Some(block) = self.sides[side.index()].block.take() {
                    self.cut_block(context, side, block);
                }
            }
            _ => {}
        }
    }

    /// The rest of a frame is not in the trace.
    fn cut_payload(&mut self, context: &mut Context<'_>, side: HttpSide, frame: FrameHead, left: u32) {
        let payload = std::mem::take(&mut self.sides[side.index()].payload);
        let recorded = is_long(frame) || frame.len == SKIPPED.len;
        if !has_block(frame.kind) {
            if !recorded {
                context.record(side, WireKind::Framing, &frame.to_bytes());
                context.record_unreadable(side, payload.len());
            }
            return;
        }
        // The padding is at the end, so it is not there.
        let mut whole = frame;
        whole.flags &= !PADDED;
        let start = usize::from(frame.has(PADDED) && frame.kind != CONTINUATION).min(payload.len());
        match frame.kind {
            CONTINUATION => {
                if let Some(mut block) = self.sides[side.index()].block.take() {
                    if block.bytes.len() + payload.len() <= MAX_BLOCK {
                        block.add_frame(context, frame, payload.len());
                        block.bytes.extend_from_slice(&payload);
                    }
                    self.end_cut_block(context, side, block, left);
                }
            }
            _ => match self.begin_block(context, side, whole, &payload[start..]) {
                Some(mut block) => {
                    if recorded {
                        block.frames.clear();
                    }
                    self.end_cut_block(context, side, block, left);
                }
                None => {
                    if !recorded {
                        context.record(side, WireKind::Framing, &frame.to_bytes());
                        context.record_unreadable(side, payload.len());
                    }
                    self.lose_block(context, side, frame);
                }
            },
        }
    }

    /// Takes a header block of which only the beginning is there.
    fn cut_block(&mut self, context: &mut Context<'_>, side: HttpSide, block: Block) {
        self.end_cut_block(context, side, block, 0);
    }

    /// Takes a header block of whose last frame so many bytes are missing.
    fn end_cut_block(&mut self, context: &mut Context<'_>, side: HttpSide, block: Block, missing: u32) {
        context.report(HttpFact::CutHead(side));
        self.end_block(context, side, block, Some(missing));
    }

    /// Decodes a header block. If it is `cut`, so many bytes of its last frame are missing.
    fn end_block(&mut self, context: &mut Context<'_>, side: HttpSide, mut block: Block, cut: Option<u32>) {
        let mut list = List::default();
        let whole = cut.is_none();
        let first = context.shared.wire.as_ref().map_or(0, Wire::field_count);
        let mut is_valid = true;
        let hpack = &mut self.sides[side.index()].hpack;
        let decoded = hpack.decode(&block.bytes, |field| {
            is_valid &= field.is_valid();
            if let Some(wire) = &mut context.shared.wire {
                wire.add_field(field);
            }
            let BlockField { name, value, form } = field;
            matches!(form.representation, Representation::TableSize(_)) || list.add(name, value)
        });
        if let Some(wire) = &context.shared.wire {
            let frames = std::mem::take(&mut block.frames);
            let is_sound = is_valid && list.size <= MAX_LIST && (decoded.is_ok() || !whole);
            let recorded = HeaderBlock::new(wire, first, frames, is_sound, cut);
            context.record(side, WireKind::HeaderBlock(Box::new(recorded)), &[]);
        }
        if context.shared.is_strict && !is_valid {
            // What was taken for a header block after bytes were lost may be anything.
            list = List { damaged: true, size: list.size, ..List::default() };
        }
        if decoded.is_err() || !whole {
            hpack.lose();
            if whole {
                context.report(HttpFact::BadBlock(side));
            }
            list.damaged = true;
        }
        if list.size > MAX_LIST {
            context.report(HttpFact::LongList { side, limit: MAX_LIST });
        }
        if list.unknown > 0 {
            context.report(HttpFact::UnknownFields { side, fields: list.unknown });
        }
        match block.promised {
            Some(promised) => self.promise(context, promised, list, block.began),
            None => self.headers(context, side, &block, list),
        }
    }

    /// A server announces what it pushes.
    fn promise(&mut self, context: &mut Context<'_>, promised: u32, list: List, began: (Nanos, Place)) {
        if promised == 0 || !promised.is_multiple_of(2) || self.streams.contains_key(&promised) {
            context.report(HttpFact::BadFrame(HttpSide::Response));
            return;
        }
        self.open(context, promised, began.1);
        let Some(stream) = self.streams.get_mut(&promised) else { return };
        stream.exchange.pushed = true;
        stream.take_head(HttpSide::Request, list, began.0);
        context.hold_fields(&mut stream.exchange, HttpSide::Request);
        self.end_side(context, promised, HttpSide::Request, true);
    }

    fn headers(&mut self, context: &mut Context<'_>, side: HttpSide, block: &Block, list: List) {
        let id = block.stream;
        if !self.streams.contains_key(&id) {
            let opens = match side {
                HttpSide::Request => id % 2 == 1 && (id > self.highest || self.may_have_missed),
                HttpSide::Response => self.may_have_missed,
            };
            if !opens || self.ended.contains(&id) {
                return;
            }
            // Trailers alone are no message.
            if list.method.is_none() && list.status.is_none() && list.unknown == 0 && !list.damaged {
                return;
            }
            if side == HttpSide::Request {
                self.highest = self.highest.max(id);
            }
            self.open(context, id, block.began.1);
        }
        let Some(stream) = self.touched(id, side) else { return };
        if stream.done[side.index()] {
            context.report(HttpFact::BadFrame(side));
            return;
        }
        let has_head = stream.exchange.message(side).has_head;
        if !has_head && matches!(list.status, Some(100..=199)) && side == HttpSide::Response && !block.end_stream {
            // An informational response; the final one follows.
            return;
        }
        if has_head {
            stream.take_trailers(side, list);
            context.hold_fields(&mut stream.exchange, side);
        } else {
            stream.take_head(side, list, block.began.0);
            context.hold_fields(&mut stream.exchange, side);
            if side == HttpSide::Request {
                context.request(&stream.exchange);
            }
            let is_grpc = stream.exchange.grpc.is_some();
            self.grpc |= is_grpc;
        }
        if block.end_stream {
            self.end_side(context, id, side, true);
        }
    }

    /// Opens a stream. If there are too many, the oldest is given up.
    fn open(&mut self, context: &mut Context<'_>, id: u32, place: Place) {
        if self.streams.len() >= MAX_STREAMS || (context.shared.is_crowded() && !self.streams.is_empty()) {
            context.report(HttpFact::ManyOpen { limit: self.streams.len() });
            if let Some((oldest, _)) = self.streams.first_key_value() {
                let oldest = *oldest;
                self.give_up(context, oldest);
            }
        }
        let mut exchange = Box::new(Exchange::new(context.connection.clone(), place));
        exchange.protocol = Some("HTTP/2");
        let losses = [self.sides[0].losses, self.sides[1].losses];
        context.shared.opened();
        self.streams.insert(id, Stream { exchange, done: [false; 2], grpc: None, frames: None, losses });
    }

    /// A stream that a side's bytes belong to. If bytes were lost since the last ones, they may have been the stream's.
    fn touched(&mut self, id: u32, side: HttpSide) -> Option<&mut Stream> {
        let losses = self.sides[side.index()].losses;
        let stream = self.streams.get_mut(&id)?;
        if stream.losses[side.index()] != losses {
            stream.losses[side.index()] = losses;
            if !stream.done[side.index()] {
                stream.lose(side, None);
            }
        }
        Some(stream)
    }

    fn lose_body(&mut self, id: u32, side: HttpSide, bytes: Option<u64>) {
        if let Some(stream) = self.touched(id, side)
            && !stream.done[side.index()]
        {
            stream.lose(side, bytes);
        }
    }

    /// One side of a stream is over; `seen` says that its last byte is in the trace.
    fn end_side(&mut self, context: &mut Context<'_>, id: u32, side: HttpSide, seen: bool) {
        let Some(stream) = self.touched(id, side) else { return };
        if stream.done[side.index()] {
            return;
        }
        stream.done[side.index()] = true;
        if let Some(reader) = &mut stream.grpc {
            reader.end(&mut stream.exchange, side);
        }
        let message = stream.exchange.message_mut(side);
        message.ended = seen.then_some(context.time);
        message.complete = seen && message.has_head && !message.damaged;
        if stream.done == [true; 2] {
            self.give_up(context, id);
        }
    }

    /// Ends a stream, whatever of it is missing.
    fn give_up(&mut self, context: &mut Context<'_>, id: u32) {
        for side in SIDES {
            let _ = self.touched(id, side);
        }
        let Some(stream) = self.streams.remove(&id) else { return };
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back(id);
        context.emit(stream.exchange);
    }
}

/// Stands for what is left of a frame whose beginning cannot be read any more.
const SKIPPED: FrameHead = FrameHead::NOTHING;

/// Whether a frame has a header block or a part of one.
fn has_block(kind: u8) -> bool {
    matches!(kind, HEADERS | PUSH_PROMISE | CONTINUATION)
}

/// Whether a frame is too long to be kept.
fn is_long(frame: FrameHead) -> bool {
    frame.len as usize > MAX_BLOCK
}

impl Block {
    fn add_frame(&mut self, context: &Context<'_>, head: FrameHead, fragment: usize) {
        if context.records() {
            self.frames.push(BlockFrame { head, prefix: Vec::new(), fragment, padding: 0 });
        }
    }
}

/// Whether the payload of a frame of this kind is read.
fn is_read(kind: u8) -> bool {
    matches!(kind, HEADERS | PUSH_PROMISE | CONTINUATION | RST_STREAM | GOAWAY)
}

impl Stream {
    fn add_body(&mut self, context: &mut Context<'_>, side: HttpSide, bytes: &[u8]) {
        let Self { exchange, grpc, frames, .. } = self;
        if let Some(reader) = grpc {
            reader.data(exchange, side, bytes);
        }
        if let (Some(frames), Some(web_socket)) = (frames, &mut exchange.web_socket) {
            frames[side.index()].data(context.time, bytes, web_socket);
        }
        let time = context.time;
        let message = exchange.message_mut(side);
        message.began.get_or_insert(time);
        context.add_body(message, bytes);
    }

    fn lose(&mut self, side: HttpSide, bytes: Option<u64>) {
        if let Some(reader) = &mut self.grpc {
            reader.lose(&mut self.exchange, side, bytes);
        }
        if let (Some(frames), Some(web_socket)) = (&mut self.frames, &mut self.exchange.web_socket) {
            let loss = bytes.map_or(Loss::Unknown, Loss::Exactly);
            frames[side.index()].lose(loss, &mut web_socket.sides[side.index()]);
        }
        self.exchange.message_mut(side).lose_body(bytes);
    }

    fn take_head(&mut self, side: HttpSide, list: List, began: Nanos) {
        let exchange = &mut self.exchange;
        let message = exchange.message_mut(side);
        message.began.get_or_insert(began);
        message.has_head = true;
        message.damaged |= list.damaged || list.unknown > 0;
        message.is_partial_head |= list.damaged || list.unknown > 0;
        message.unknown_fields = list.unknown;
        message.pseudo_size = list.pseudo_size;
        message.fields = list.fields;
        let length = message.fields.get("content-length").and_then(|value| str::from_utf8(value).ok());
        message.content_length = length.and_then(|length| length.parse().ok());
        match side {
            HttpSide::Request => {
                exchange.host = list.authority.or_else(|| exchange.request.fields.get("host").map(<[u8]>::to_vec));
                (exchange.method, exchange.scheme, exchange.path) = (list.method, list.scheme, list.path);
                if list.protocol.as_deref() == Some(b"websocket") {
                    exchange.web_socket = Some(Box::new(WebSocket::default()));
                    self.frames = Some(Box::new(SIDES.map(Frames::new)));
                }
            }
            HttpSide::Response => exchange.code = list.status,
        }
        if self.grpc.is_none() {
            self.grpc = grpc::Reader::of(exchange, side);
        }
        if let (Some(reader), HttpSide::Response) = (&mut self.grpc, side) {
            reader.response_head(exchange);
        }
    }

    fn take_trailers(&mut self, side: HttpSide, list: List) {
        let exchange = &mut self.exchange;
        let message = exchange.message_mut(side);
        message.damaged |= list.damaged || list.unknown > 0;
        message.unknown_fields += list.unknown;
        message.trailers = list.fields;
        if let (Some(reader), HttpSide::Response) = (&mut self.grpc, side) {
            reader.response_trailers(exchange);
        }
    }
}

impl List {
    /// Adds a field, and returns whether there is room for more.
    fn add(&mut self, name: Option<&[u8]>, value: Option<&[u8]>) -> bool {
        let (Some(name), Some(value)) = (name, value) else {
            self.unknown += 1;
            return true;
        };
        // The overhead bounds the number of empty fields as well (RFC 9113 section 6.5.2).
        self.size = self.size.saturating_add(name.len() + value.len() + 32);
        if self.size > MAX_LIST {
            self.damaged = true;
            return false;
        }
        let Some(pseudo) = name.strip_prefix(b":") else {
            self.fields.push(name, value);
            return true;
        };
        self.pseudo_size += (name.len() + value.len()) as u64;
        match pseudo {
            b"method" => self.method = Some(value.to_vec()),
            b"scheme" => self.scheme = Some(value.to_vec()),
            b"authority" => self.authority = Some(value.to_vec()),
            b"path" => self.path = Some(value.to_vec()),
            b"protocol" => self.protocol = Some(value.to_vec()),
            b"status" => self.status = str::from_utf8(value).ok().and_then(|status| status.parse().ok()),
            _ => {}
        }
        true
    }
}
