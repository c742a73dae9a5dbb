use super::{
    connection::{EnvoyInternalAddress, PipeMessage, SocketAddress},
    http::{HeaderMap, HeaderValue, HttpHalf},
    socket::{Closed, Read, Write},
    *,
};
use crate::{proto::DESCRIPTORS, trace::Address};
use prost_reflect::Kind;

/// Compares a table with the message's definition.
fn assert_defined<F: SchemaFields>(package: &str) {
    let message = DESCRIPTORS.get_message_by_name(&format!("{package}.{}", F::MESSAGE)).unwrap();
    let name = message.name();
    for number in 0..1000 {
        let Some(field) = message.get_field(number) else {
            assert!(!F::has(number, true) && !F::has(number, false) || (name, number) == ("Connection", 3), "{name}");
            continue;
        };
        let is_delimited = matches!(field.kind(), Kind::String | Kind::Bytes | Kind::Message(_));
        assert_eq!(
            (F::has(number, is_delimited), F::has(number, !is_delimited)),
            (true, false),
            "{}",
            field.full_name()
        );
        for is_json in [false, true] {
            assert_eq!(F::named(field.name().as_bytes(), is_json), Some(number), "{}", field.full_name());
            let by_json_name = (is_json || field.json_name() == field.name()).then_some(number);
            assert_eq!(F::named(field.json_name().as_bytes(), is_json), by_json_name, "{}", field.full_name());
        }
    }
    assert_eq!(F::named(b"later", true), None);
}

#[test]
fn the_tables_are_what_envoy_and_protobuf_define() {
    const TAP: &str = "envoy.data.tap.v3";
    const CORE: &str = "envoy.config.core.v3";
    assert_defined::<Parts>(TAP);
    assert_defined::<HttpBuffered<'_>>(TAP);
    assert_defined::<HttpHalf<'_>>(&format!("{TAP}.HttpBufferedTrace"));
    assert_defined::<HttpStreamed<'_>>(TAP);
    assert_defined::<HeaderMap<'_>>(CORE);
    assert_defined::<HeaderValue>(CORE);
    assert_defined::<SocketBuffered<'_>>(TAP);
    assert_defined::<SocketStreamed<'_>>(TAP);
    assert_defined::<SocketEvents>(TAP);
    assert_defined::<EventParts>(TAP);
    assert_defined::<Read<'_>>(&format!("{TAP}.SocketEvent"));
    assert_defined::<Write<'_>>(&format!("{TAP}.SocketEvent"));
    assert_defined::<Closed<'_>>(&format!("{TAP}.SocketEvent"));
    assert_defined::<Body>(TAP);
    assert_defined::<Ends>(TAP);
    assert_defined::<Option<Address>>(CORE);
    assert_defined::<SocketAddress<'_>>(CORE);
    assert_defined::<PipeMessage<'_>>(CORE);
    assert_defined::<EnvoyInternalAddress<'_>>(CORE);
    assert_defined::<Time>("google.protobuf");
}
