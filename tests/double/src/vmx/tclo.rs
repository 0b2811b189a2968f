//! TCLO: the host's questions, one at a time, and the guest's answers. However they cross.

use super::Vmx;

impl Vmx {
    /// What it asks now: nothing while a question is not answered.
    pub(super) fn next_question(&self) -> Option<&[u8]> {
        if self.asked.is_some() { None } else { self.questions.front().map(Vec::as_slice) }
    }

    /// The next question, which the guest has herewith taken.
    pub fn ask(&mut self) -> Option<Vec<u8>> {
        if self.asked.is_none() {
            self.asked = self.questions.pop_front();
            return self.asked.clone();
        }
        None
    }

    /// What the guest sends: its answer, or nothing, which says that it is there.
    pub fn answer(&mut self, answer: &[u8]) {
        if answer.is_empty() {
            self.signs_of_life += 1;
            return;
        }
        self.asked = None;
        self.answers.push(answer.to_vec());
    }

    /// The guest is gone with its question: it will be asked the next one.
    pub fn hang_up(&mut self) {
        self.asked = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_asked_one_at_a_time() {
        let mut vmx = Vmx { questions: [b"reset".to_vec(), b"ping".to_vec()].into(), ..Vmx::default() };
        vmx.answer(b"");
        assert_eq!(vmx.ask().as_deref(), Some(&b"reset"[..]));
        assert_eq!(vmx.ask(), None);
        vmx.answer(b"");
        assert_eq!(vmx.ask(), None, "nothing is no answer");
        vmx.answer(b"OK ATR toolbox");
        assert_eq!(vmx.ask().as_deref(), Some(&b"ping"[..]));
        vmx.answer(b"OK ");
        assert_eq!(vmx.ask(), None);
        assert_eq!(vmx.answers, [b"OK ATR toolbox".to_vec(), b"OK ".to_vec()]);
        assert_eq!(vmx.signs_of_life, 2);
    }

    #[test]
    fn a_guest_that_comes_back_is_asked_the_next() {
        let mut vmx = Vmx { questions: [b"reset".to_vec(), b"ping".to_vec()].into(), ..Vmx::default() };
        assert!(vmx.ask().is_some());
        vmx.hang_up();
        assert_eq!(vmx.ask().as_deref(), Some(&b"ping"[..]));
    }
}
