//! How many tokens an answer took, read from its bytes as they pass.

use serde_json::Value;

/// Reads a provider's answer of either shape: one JSON object, or an event stream.
#[derive(Debug)]
pub struct UsageReader {
    is_stream: bool,
    /// The whole object, or the line that has not ended yet.
    pending: Vec<u8>,
    /// More came than is kept.
    is_full: bool,
    input: u64,
    output: u64,
}

impl UsageReader {
    pub fn new(is_stream: bool) -> Self {
        Self { is_stream, pending: Vec::new(), is_full: false, input: 0, output: 0 }
    }

    pub fn feed(&mut self, mut data: &[u8]) {
        while self.is_stream
            && let Some(end) = data.iter().position(|byte| *byte == b'\n')
        {
            self.keep(&data[..end]);
            data = &data[end + 1..];
            self.read_line();
        }
        self.keep(data);
    }

    /// Input and output together; `None` where the answer did not say.
    pub fn tokens(&mut self) -> Option<u64> {
        self.read_line();
        let tokens = self.input.saturating_add(self.output);
        (tokens > 0).then_some(tokens)
    }

    fn keep(&mut self, data: &[u8]) {
        self.is_full |= self.pending.len() + data.len() > KEPT_BYTES_MAX;
        if !self.is_full {
            self.pending.extend_from_slice(data);
        }
    }

    fn read_line(&mut self) {
        let line = std::mem::take(&mut self.pending);
        let text = line.strip_prefix(b"data:").unwrap_or(&line);
        if !std::mem::take(&mut self.is_full)
            && line.windows(USAGE.len()).any(|part| part == USAGE)
            && let Ok(value) = serde_json::from_slice::<Value>(text)
        {
            // An answer's own; inside the event that begins or ends one.
            for place in ["/usage", "/message/usage", "/response/usage"] {
                value.pointer(place).into_iter().for_each(|usage| self.take(usage));
            }
        }
    }

    /// Counts only grow within one answer: the last is the whole.
    fn take(&mut self, usage: &Value) {
        let count = |names: &[&str]| names.iter().filter_map(|name| usage.get(name)?.as_u64()).sum::<u64>();
        let input = ["prompt_tokens", "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"];
        self.input = self.input.max(count(&input));
        self.output = self.output.max(count(&["completion_tokens", "output_tokens"]));
    }
}

const USAGE: &[u8] = b"\"usage\"";

/// A longer answer is not read for its usage.
const KEPT_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_however_the_answer_is_cut() {
        let check = |is_stream: bool, answer: &str, tokens: Option<u64>| {
            for size in [1, 7, answer.len().max(1)] {
                let mut reader = UsageReader::new(is_stream);
                answer.as_bytes().chunks(size).for_each(|piece| reader.feed(piece));
                assert_eq!(reader.tokens(), tokens, "{answer} in pieces of {size}");
            }
        };
        check(false, "{\n\"usage\":{\"prompt_tokens\":5,\n\"completion_tokens\":7,\"total_tokens\":12}}", Some(12));
        check(false, r#"{"usage":{"input_tokens":5,"output_tokens":7,"cache_read_input_tokens":3}}"#, Some(15));
        check(false, r#"{"usage":{"prompt_tokens":5}}"#, Some(5));
        check(false, r#"{"choices":[]}"#, None);
        check(false, r#"{"usage":{"prompt_tokens":5"#, None);
        check(false, "", None);
        check(
            true,
            "data: {\"usage\":null}\n\ndata: {\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7}}\n\ndata: [DONE]\n\n",
            Some(12),
        );
        check(
            true,
            "event: message_start\r\ndata: {\"message\":{\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}}\r\n\r\nevent: message_delta\r\ndata: {\"usage\":{\"output_tokens\":7}}\r\n\r\n",
            Some(12),
        );
        check(true, "data: {\"response\":{\"usage\":{\"input_tokens\":5,\"output_tokens\":7}}}", Some(12));
        check(true, "data: {}\n\n", None);
    }
}
