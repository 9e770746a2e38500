//! What the server says: a page for browsers, a few lines for curl, and plain words for the rest.

/// An answer before it is written out.
pub struct Answer {
    status: u16,
    kind: &'static str,
    body: String,
    /// The code to exit with once it is sent.
    pub exit: Option<u8>,
}

impl Answer {
    pub fn text(status: u16, body: String) -> Answer {
        Answer { status, kind: "text/plain; charset=utf-8", body, exit: None }
    }

    pub fn render(&self, keep_alive: bool, head_only: bool) -> Vec<u8> {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            _ => "Method Not Allowed",
        };
        let connection = if keep_alive && self.exit.is_none() { "keep-alive" } else { "close" };
        let mut text = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             Connection: {connection}\r\n\r\n",
            self.status,
            self.kind,
            self.body.len()
        );
        if !head_only {
            text.push_str(&self.body);
        }
        text.into_bytes()
    }
}

/// The front page's facts.
pub struct Greeting<'a> {
    pub host: &'a str,
    pub task: Option<&'a str>,
    pub count: u64,
}

impl Greeting<'_> {
    pub fn answer(&self, html: bool) -> Answer {
        let (host, count) = (self.host, self.count);
        // Outside a task, and under an agent without the metadata endpoint, nobody says which task it is.
        if !html {
            let task = self.task.map(|task| format!("task:     {task}\n")).unwrap_or_default();
            return Answer::text(200, format!("Hello from Berth!\nhost:     {host}\n{task}requests: {count}\n"));
        }
        let task = self.task.map(|task| format!("<dt>task</dt><dd>{}</dd>\n", escape(task))).unwrap_or_default();
        let body = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>Hello from Berth</title>\n<style>\n\
             body {{ font: 18px/1.5 system-ui, sans-serif; background: #eef4f8; color: #14303f; margin: 12vh auto; \
             max-width: 34em; padding: 0 1em }}\n\
             h1 {{ font-weight: 600 }}\ndl {{ display: grid; grid-template-columns: max-content 1fr; gap: .3em 1.2em }}\n\
             dt {{ color: #5b7685 }}\ndd {{ margin: 0; overflow-wrap: anywhere; font-family: ui-monospace, monospace }}\n\
             </style>\n<h1>Hello from Berth</h1>\n<dl>\n<dt>host</dt><dd>{}</dd>\n{task}\
             <dt>requests</dt><dd>{count}</dd>\n</dl>\n</html>\n",
            escape(host)
        );
        Answer { status: 200, kind: "text/html; charset=utf-8", body, exit: None }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The environment, one variable a line, sorted.
pub fn environment() -> Answer {
    let mut lines: Vec<String> = std::env::vars_os().map(|(k, v)| format!("{}={}\n", k.to_string_lossy(), v.to_string_lossy())).collect();
    lines.sort();
    Answer::text(200, lines.concat())
}

/// `/exit?code=N`: the answer, after which the process ends with that code (0 if none is named).
pub fn exit(code: Option<&str>) -> Answer {
    match code.unwrap_or("0").parse::<u8>() {
        Ok(code) => Answer { exit: Some(code), ..Answer::text(200, format!("exiting with {code}\n")) },
        Err(_) => Answer::text(400, "code must be a number from 0 to 255\n".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_escapes_and_a_text_does_not() {
        let greeting = Greeting { host: "<h>", task: Some("arn:aws:ecs:x"), count: 7 };
        assert!(greeting.answer(true).body.contains("&lt;h&gt;"));
        let text = greeting.answer(false).body;
        assert!(text.contains("<h>") && text.contains("arn:aws:ecs:x") && text.contains('7'), "{text}");
    }

    #[test]
    fn what_nobody_knows_is_left_out() {
        let greeting = Greeting { host: "h", task: None, count: 7 };
        assert!(!greeting.answer(true).body.contains("task") && !greeting.answer(false).body.contains("task"));
    }

    #[test]
    fn exit_codes() {
        assert_eq!(exit(None).exit, Some(0));
        assert_eq!(exit(Some("255")).exit, Some(255));
        assert_eq!((exit(Some("256")).exit, exit(Some("x")).status), (None, 400));
    }

    #[test]
    fn head_has_the_length_but_no_body() {
        let text = String::from_utf8(Answer::text(200, "12345".into()).render(true, true)).unwrap();
        assert!(text.contains("Content-Length: 5\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    }
}
