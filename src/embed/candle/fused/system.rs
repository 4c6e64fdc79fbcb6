//! The two things that the kernels ask of Linux on x86-64, by system call: huge pages for the weights, and the use of
//! the tile registers. Either may be refused; then nothing has changed.

/// Asks for huge pages under a stretch of memory.
pub(super) fn prefer_huge_pages<T>(memory: &[T]) {
    const MADVISE: usize = 28;
    const HUGE_PAGE: usize = 14;
    let start = (memory.as_ptr() as usize).next_multiple_of(PAGE_BYTES);
    let end = (memory.as_ptr() as usize + size_of_val(memory)) / PAGE_BYTES * PAGE_BYTES;
    if start < end {
        // SAFETY: advice on pages wholly inside the borrowed memory; it changes how they are backed, not what they
        // hold. A refusal leaves the small pages, so the result says nothing that is acted on.
        let _refusal: isize = unsafe { call(MADVISE, [start, end - start, HUGE_PAGE]) };
    }
}

/// Asks for the tile registers, which a process may use only after it has asked: every thread's saved state grows.
pub(super) fn allow_tiles() -> bool {
    const ARCH_PRCTL: usize = 158;
    const REQUEST_PERMISSION: usize = 0x1023;
    const TILE_STATE: usize = 18;
    // SAFETY: the call takes two numbers and touches no memory of ours.
    unsafe { call(ARCH_PRCTL, [REQUEST_PERMISSION, TILE_STATE, 0]) == 0 }
}

/// # Safety
/// As the system call that `number` names.
unsafe fn call(number: usize, arguments: [usize; 3]) -> isize {
    let result: isize;
    // SAFETY: the calling convention of the x86-64 kernel: it keeps all registers but rax, rcx and r11. What the call
    // does is the caller's promise.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

const PAGE_BYTES: usize = 4096;
