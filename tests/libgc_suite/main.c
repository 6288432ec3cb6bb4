/* SPDX-License-Identifier: MIT */
/* Runs the conformance tests of libgc's interface: each in a child process. */
#include "check.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const struct test *const groups[] = {
		alloc_tests,   kind_tests, finalizer_tests, link_tests,
		thread_tests,  root_tests, toggle_tests,    disclaim_tests,
		surface_tests, stack_tests};
	int number = 0, failed = 0;

	if (argc > 1 && !strcmp(argv[1], "--leak"))
		return leak_main();
	for (size_t g = 0; g < sizeof(groups) / sizeof(groups[0]); g++) {
		for (const struct test *t = groups[g]; t->name; t++) {
			int status;
			pid_t child;

			if (argc > 1 && !strstr(t->name, argv[1]))
				continue;
			fflush(NULL);
			child = fork();
			if (child < 0) {
				perror("fork");
				return 2;
			}
			if (!child) {
				alarm(120);
				GC_INIT();
				t->fn();
				exit(0);
			}
			waitpid(child, &status, 0);
			printf("%sok %d - %s", status ? "not " : "", ++number,
			       t->name);
			if (WIFSIGNALED(status))
				printf(" (signal %d)", WTERMSIG(status));
			puts("");
			failed += status != 0;
		}
	}
	printf("1..%d\n", number);
	return failed != 0;
}
