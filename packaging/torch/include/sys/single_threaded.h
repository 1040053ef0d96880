// glibc has this header since 2.32. With an older one a program cannot know that it has a single thread.
#pragma once
static const char __libc_single_threaded = 0;
