use super::decode::{Decode, Step};
use crate::trace::Message;
#[derive(Debug, Default)]
pub(crate) struct TextDecoder;
impl Decode for TextDecoder {
    fn step(&mut self, _: &[u8], _: bool, _: &mut Message) -> Step {
        Step::End
    }
}
